"""docs/tutorial.md: its commands run one after the other as they stand there, with smaller tiles and fewer of them."""

import shlex
import shutil

import pytest

from tests.support.command import call
from tests.support.environments import ROOT
from tests.support.pages import blocks_of

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "tutorial.md"
SMALLER = {  # what a test has no time for; on so few small tiles masks agree less
    "--count 48 --size 512": "--count 6 --size 128 --workers 1",
    "--tile 512": "--tile 128",
    "--seconds 3": "--seconds 0.1 --tile 128",
    "-o roads.int8.onnx": "-o roads.int8.onnx --samples 4 --held 2 --method max --max-iou-drop 0.3 --min-agreement 0.6",
    "--limit 8": "--limit 2 --max-iou-drop 0.3 --min-agreement 0.6",
    "dlink-score masks/ tiles/": "dlink-score masks/ tiles/ --workers 1",
    "--crop 256": "--crop 64",
}
NOT_OURS = ("python3 -m venv", ". .venv", "pip install")  # what comes before dlink is there
MADE = (
    "mask.png",
    "mask_overlay.jpg",
    "masks/000000_mask.png",
    "report.html",
    "roads.plan.json",
    "tuned.onnx",
    "mine.onnx",
)


def test_the_first_hour(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").symlink_to(ROOT / "nets")
    used, names = set(), {}
    for block in blocks_of(PAGE):
        if block.not_run:
            continue
        if block.language == "python":
            exec(block.text, names)
        for line in block.text.splitlines() if block.language == "sh" else ():
            if line.startswith(NOT_OURS):
                continue
            for words in (words for words in SMALLER if words in line):
                used.add(words)
                line = line.replace(words, SMALLER[words])
            run(shlex.split(line))
    assert used == SMALLER.keys()
    assert names["mask"].shape == (128, 128)
    assert [name for name in MADE if not (tmp_path / name).exists()] == []


def run(words):
    if words[0] == "cp":
        shutil.copy(*words[1:])
    else:
        call(words[0].removeprefix("dlink-"), *words[1:])
