"""docs/guides/benchmarks.md: its commands run one after the other, on a network of one convolution, for less time."""

import shlex
from contextlib import nullcontext

import pytest
import torch

from dlink.bench import best_torch
from dlink.bench.metrics import METRICS
from dlink.runtime import Spec
from tests.support.command import call
from tests.support.environments import ROOT
from tests.support.models import write_pointwise
from tests.support.pages import blocks_of

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "guides" / "benchmarks.md"
SHORTER = {
    "roads.th": "roads.onnx",  # whose network is built with fresh weights
    "--seconds 60": "--seconds 0.1",
    "--seconds 30": "--seconds 0.1",
    "--soak 10m": "--soak 0.2s",
    "--soak 2h --rate 5": "--soak 0.2s --rate 50",
    "--rounds 12": "--rounds 1",
    "p99>1.1x": "p99>1000x",
    "peak>800MB": "peak>8000MB",
}


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", lambda net, **options: net)
    monkeypatch.setattr(best_torch, "freezing", nullcontext)
    for name in ("roads.onnx", "new.onnx"):
        write_pointwise(tmp_path / name, Spec(tile=64, width=0.25))
    used = set()
    for line in (line for block in blocks_of(PAGE) for line in block.text.splitlines()):
        for words in (words for words in SHORTER if words in line):
            used.add(words)
            line = line.replace(words, SHORTER[words])
        step, *options = shlex.split(line)
        call(step.removeprefix("dlink-"), *options, *([] if "--seconds" in line else ["--seconds", "0.05"]))
    assert used == SHORTER.keys()


def test_the_table_has_every_figure():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    named = {word.strip(" `") for row in rows for word in row.split("|")[1].split(",")}
    assert named == METRICS.keys()
