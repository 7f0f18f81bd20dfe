"""The GPU benchmark, as far as it goes without one: rows, failures, and what it says where it can't run."""

import ctypes
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dlink.cli import gpu
from dlink.trt_runtime import CheckFailed, Spec
from dlink.trt_runtime.manifest import Options
from dlink.trt_runtime.plan import look_here
from tests import fake_pycuda, host_kernels
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


@pytest.mark.skipif(bool(look_here().gpus.found), reason="needs a machine without a GPU")
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


def on_the_fake(name, machine, monkeypatch, *arguments):
    """A module of the benchmark, on tests/fake_*.py."""
    monkeypatch.delitem(sys.modules, f"dlink.bench.{name}", raising=False)
    module = importlib.import_module(f"dlink.bench.{name}")
    monkeypatch.setitem(sys.modules, f"dlink.bench.{name}", module)
    result = CliRunner().invoke(module.main, [str(a) for a in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_the_kernels_benchmark_compares_them_with_numpy_and_times_them(machine, monkeypatch):
    machine()
    said = on_the_fake("kernels", machine, monkeypatch, "--side", 32).splitlines()
    assert said[0] == "spread and gather give HostBackend's numbers"
    assert [line.split()[:3] for line in said[3:5]] == [["spread", "float32", "8"], ["gather", "float32", "8"]]
    assert len(said) == 3 + 12


def test_the_kernels_benchmark_sees_a_kernel_that_is_wrong(machine, monkeypatch):
    machine()
    right = host_kernels.launch

    def wrong(name, grid, *arguments):
        right(name, grid, *arguments)
        if name.startswith("gather"):
            ctypes.c_float.from_address(arguments[7]).value += 0.5

    monkeypatch.setattr(host_kernels, "launch", wrong)
    with pytest.raises(AssertionError, match="gather, 32 px, views .*differ, by up to 0.5"):
        on_the_fake("kernels", machine, monkeypatch, "--check")


def test_the_runtime_benchmark_has_a_row_for_each_way_and_soaks(machine, monkeypatch, tmp_path):
    there = machine(options=Options(max_tiles=2))
    rows = tmp_path / "rows.jsonl"
    on_the_fake("runtime", machine, monkeypatch, there.plan, "--calls", 2, "--soak", 8, "--append", rows)
    result = json.loads(rows.read_text())
    shapes = {(row["way"], row["tiles"], row["views"]) for row in result["rows"]}
    sizes = [(1, 1), (1, 4), (1, 8), (2, 1), (2, 4), (2, 8), (4, 1), (4, 4)]
    assert shapes == {(way, *size) for way in ("network", "graph", "plain") for size in sizes}
    assert result["soak"]["tiles"] == 8
    assert result["soak"]["gpu_bytes_lost"] == 0
    assert fake_pycuda.nothing_is_held()


def refuse():
    raise CheckFailed("FP32 was built")


def test_the_script_asks_for_its_folder(tmp_path):
    script = ROOT / "bench" / "gpu.sh"
    for arguments, said in (([], "is missing"), ([tmp_path], "has no .onnx files")):
        done = subprocess.run(["bash", script, *arguments], capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == 1
        assert said in done.stderr
