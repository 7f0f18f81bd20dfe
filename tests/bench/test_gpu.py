"""The GPU benchmark, as far as it goes without one: rows, failures, and what it says where it can't run."""

import ctypes
import importlib
import json
import sys

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dlink.bench import recorded
from dlink.cli import gpu
from dlink.imagery.images import write_image
from dlink.nets.zoo import spec_of
from dlink.runtime import BadInput, CheckFailed, Spec, open_model
from dlink.runtime.backend import HostBackend
from dlink.runtime.views import BY_COUNT
from dlink.trt_runtime.manifest import Options
from dlink.trt_runtime.plan import look_here
from tests.support import fake_pycuda, host_kernels
from tests.support.models import red, write_pointwise
from tests.support.plans import HERE

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
def test_without_a_gpu_it_says_so_in_one_line(files):
    result = CliRunner().invoke(gpu.main, files)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: this needs an NVIDIA GPU, and there is none here")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (CheckFailed("FP32 was built"), "CheckFailed: FP32 was built"),
        (click.ClickException("FP32 was built"), "FP32 was built"),
        (fake_pycuda.MemoryError("cuMemAlloc failed"), "MemoryError: cuMemAlloc failed"),
    ],
    ids=["ours", "of dlink-build", "CUDA's"],
)
def test_a_file_that_fails_is_a_row_and_the_others_are_done(fault, said, files, tmp_path, monkeypatch):
    def measured(file, *rest):
        if file.name == "b.onnx":
            return ROW
        raise fault

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, "look_here", lambda: HERE)
    monkeypatch.setattr(gpu, "measured", measured)
    result = CliRunner().invoke(gpu.main, [*files, "--append", "rows.jsonl"])
    assert result.exit_code == 1
    first, second = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert (first["error"], first["gpu"]) == (said, "Orin, compute capability 8.7, 8.0 GiB")
    assert second["network_ms"]["p50"] == 2.5
    assert f"a.onnx: FAILED: {said}" in result.stdout
    assert "roads.onnx: 2.50 ms for 8 views (2.40 to 2.90), int8 97.0%, fp16 3.0% by inspector" in result.stdout
    assert "1 of 2 files failed" in result.stderr


def test_ctrl_c_while_a_file_is_built_ends_all_of_it(files, tmp_path, monkeypatch):
    def measured(*given):
        raise click.Abort

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, "look_here", lambda: HERE)
    monkeypatch.setattr(gpu, "measured", measured)
    result = CliRunner().invoke(gpu.main, [*files, "--append", "rows.jsonl"])
    assert (result.exit_code, result.output) == (1, "Aborted!\n")
    assert not (tmp_path / "rows.jsonl").exists()


def module_on_the_fake(name, monkeypatch):
    """A module of the benchmark, on tests/support/fake_*.py."""
    monkeypatch.delitem(sys.modules, f"dlink.bench.{name}", raising=False)
    module = importlib.import_module(f"dlink.bench.{name}")
    monkeypatch.setitem(sys.modules, f"dlink.bench.{name}", module)
    return module


def on_the_fake(name, machine, monkeypatch, *arguments):
    """The same, run."""
    module = module_on_the_fake(name, monkeypatch)
    result = CliRunner().invoke(module.main, [str(a) for a in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_the_kernels_benchmark_compares_them_with_numpy_and_times_them(machine, monkeypatch):
    machine()
    said = on_the_fake("kernels", machine, monkeypatch, "--side", 32).splitlines()
    assert said[0] == "spread and gather give HostBackend's numbers"
    assert [line.split()[:3] for line in said[3:5]] == [["spread", "float32", "8"], ["gather", "float32", "8"]]
    assert len(said) == 3 + 12


def test_kernels_are_timed_many_at_once_over_more_memory_than_the_cache_has(machine, monkeypatch):
    machine()
    module = module_on_the_fake("kernels", monkeypatch)
    right, seen = module.seconds, []

    def watched(runs, stream):
        fake_pycuda.LOG.clear()
        took = right(runs, stream)
        log = fake_pycuda.LOG
        captured = log[log.index("cuStreamBeginCapture_v2") : log.index("cuStreamEndCapture")]
        assert log.count("cuGraphLaunch") == log.count("record") // 2
        benches = {each.__self__ for run in runs if hasattr(each := getattr(run, "func", run), "__self__")}
        seen.append((len(captured) - 1, sum(bench.moved[captured[1]] for bench in benches)))
        return took

    monkeypatch.setattr(module, "seconds", watched)
    assert CliRunner().invoke(module.main, ["--side", "32"]).exit_code == 0
    assert len(seen) == 1 + 12
    assert min(launches for launches, _ in seen) >= 40
    assert min(moved for _, moved in seen[1:]) >= 4 * 4096  # the fake GPU's cache


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
    assert shapes == {(way, *size) for way in ("network", "copies", "graph", "plain") for size in sizes}
    assert result["soak"]["tiles"] == 8
    assert result["soak"]["gpu_bytes_lost"] == 0
    assert fake_pycuda.nothing_is_held()


def test_the_network_is_timed_on_a_picture_whichever_slot_it_runs_in(machine, monkeypatch):
    there = machine(options=Options(max_tiles=1))
    network = module_on_the_fake("network", monkeypatch)
    with open_model(there.plan) as model:
        backend = model.backend
        network.network_times(backend, 8, 1)
        x = backend.spec.prepare(network.picture(backend.spec.tile)[None])
        for slot in backend.at_work:
            read = fake_pycuda.find(slot.batch, backend.memory.batch).view(np.float32).reshape(8, 3, *x.shape[2:])
            np.testing.assert_array_equal(read, np.repeat(x, 8, axis=0))


@pytest.mark.parametrize("spec", [Spec(tile=32), spec_of("pplinknet34-psp64", tile=32, channels="RGB")])
def test_pytorchs_ways_prepare_and_cut_as_the_spec_says(machine, monkeypatch, spec):
    machine()
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    way = module_on_the_fake("runtime", monkeypatch).torch_way(lambda x: torch.sigmoid(2 * x[:, 2:]), spec)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    prob = HostBackend(lambda x: 1 / (1 + np.exp(-2 * x[:, 2])), spec, max_tiles=16).probabilities(tiles, BY_COUNT[8])
    clear = np.abs(prob - spec.threshold) > 0.01
    np.testing.assert_array_equal(way(tiles, 8)[clear] > 0, prob[clear] > spec.threshold)
    assert 0.2 < (prob[clear] > spec.threshold).mean() < 0.98


def test_a_picture_has_large_and_small_features(machine, monkeypatch):
    machine()
    image = module_on_the_fake("network", monkeypatch).picture(256).astype(float)
    assert (image.shape, image.std() > 20) == ((256, 256, 3), True)
    near = np.abs(np.diff(image, axis=0)).mean()
    far = np.abs(image[64:] - image[:-64]).mean()
    assert 1 < near < far / 2


def test_the_first_mask_is_timed_from_the_start_of_the_process(machine, monkeypatch, tmp_path):
    there = machine(options=Options(max_tiles=1))
    on_the_fake("first", machine, monkeypatch, there.plan, "--append", tmp_path / "rows.jsonl")
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert row["first_mask_s"] > row["open_s"] + row["mask_s"] > 0
    assert row["gpu_bytes"]["total"] > 0


def test_recorded_roads_stand_in_for_a_checkpoint(tmp_path, monkeypatch):
    spec, tile = Spec(tile=32), np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    (tmp_path / "tiles").mkdir()
    write_image(tmp_path / "tiles" / "1_sat.png", tile)
    (tmp_path / "roads.th").write_bytes(b"")
    like = write_pointwise(tmp_path / "roads.onnx", spec)
    backend = HostBackend(lambda x: 1 / (1 + np.exp(-2 * x[:, 2])), spec)
    monkeypatch.setattr("dlink.nets.torch_backend.open", lambda path, spec: backend)
    arguments = [tmp_path / "roads.th", tmp_path / "tiles", tmp_path / "kept", "--like", like]
    assert CliRunner().invoke(recorded.main, [str(a) for a in arguments]).exit_code == 0
    kept = recorded.Recorded(tmp_path / "kept")
    for views in (8, 1):
        np.testing.assert_allclose(kept.probabilities(tile, views), red(tile), atol=1e-6)
    with pytest.raises(BadInput, match="holds other pictures"):
        kept.probabilities(tile + 1, 8)
