"""The GPU benchmark, as far as it goes without one: rows, failures, and what it says where it can't run."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from dlink.cli import gpu
from dlink.trt_runtime import CheckFailed, Spec
from dlink.trt_runtime.plan import look_here
from tests.models import write_pointwise
from tests.plans import HERE

ROOT = Path(__file__).parents[1]
ROW = {
    "engine": "TensorRT 10.3.0",
    "file": {"name": "roads.onnx"},
    "precision": {"int8": 0.97, "fp16": 0.03},
    "proven_by": "inspector",
    "batch": 8,
    "build_s": 61.0,
    "network_ms": {"p50": 2.5, "least": 2.4, "most": 2.9},
}


@pytest.fixture
def files(tmp_path):
    return [str(write_pointwise(tmp_path / name, Spec(tile=32))) for name in ("a.onnx", "b.onnx")]


@pytest.mark.skipif(bool(look_here().gpus.found), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_in_one_line(files, tmp_path):
    done = subprocess.run(["bash", ROOT / "bench" / "gpu.sh", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: this needs an NVIDIA GPU, and there is none here")


def test_a_file_that_fails_is_a_row_and_the_others_are_done(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, "look_here", lambda: HERE)
    monkeypatch.setattr(gpu, "measured", lambda file, *rest: ROW if file.name == "b.onnx" else refuse())
    result = CliRunner().invoke(gpu.main, [*files, "--append", "rows.jsonl"])
    assert result.exit_code == 1
    first, second = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert (first["error"], first["gpu"]) == ("FP32 was built", "Orin, compute capability 8.7, 8.0 GiB")
    assert second["network_ms"]["p50"] == 2.5
    assert "a.onnx: FAILED: FP32 was built" in result.stdout
    assert "roads.onnx: 2.50 ms for 8 views (2.40 to 2.90), int8 97.0%, fp16 3.0% by inspector" in result.stdout
    assert "1 of 2 files failed" in result.stderr


def refuse():
    raise CheckFailed("FP32 was built")


def test_the_script_asks_for_its_folder(tmp_path):
    script = ROOT / "bench" / "gpu.sh"
    for arguments, said in (([], "is missing"), ([tmp_path], "has no .onnx files")):
        done = subprocess.run(["bash", script, *arguments], capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == 1
        assert said in done.stderr
