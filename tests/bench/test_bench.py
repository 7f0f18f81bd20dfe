import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dlink.bench.authors import eight_view_sum
from dlink.bench.compare import FileRow, advice
from dlink.bench.latency import latency, ratio, summary
from dlink.bench.machine import machine, peak_bytes
from dlink.cli.bench import bench
from dlink.nets.checkpoint import read_checkpoint
from dlink.nets.embedded import EMBEDDED
from dlink.nets.torch_backend import network
from dlink.openvino_runtime.saturation import saturates
from dlink.runtime import HostBackend, Segmenter, Spec, open_model
from dlink.runtime.backend import Spent
from dlink.scenes import scene
from tests.support.models import write_pointwise


def test_eight_views_of_a_1024_tile_are_the_authors_to_1e_5():
    net = read_checkpoint(EMBEDDED).net
    image = scene(1_000_003, 1024).image
    ours = Segmenter(HostBackend(network(net), Spec(width=0.25))).probabilities(image)
    theirs = eight_view_sum(net, image) / 8
    assert theirs.max() - theirs.min() > 0.5  # roads, and none
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_authors_sum_is_of_eight_undone_probabilities():
    seen = []

    class Red(torch.nn.Module):  # pointwise, of what is red in BGR
        def forward(self, x):
            seen.append(tuple(x.shape))
            return torch.sigmoid(x[:, 2:3])

    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    expected = 8 / (1 + np.exp(-(image[..., 0] / 255 * 3.2 - 1.6)))
    np.testing.assert_allclose(eight_view_sum(Red(), image), expected, atol=1e-5)
    assert seen == [(4, 3, 32, 32)] * 2


def test_figures_of_known_times():
    row = summary([0.1, 0.2, 0.3, 0.4], Spent(prepare=0.04, network=0.8, undo=0.08), views=8, side=1000)
    assert (row.p50_ms, row.max_ms, row.calls) == (pytest.approx(250), 400, 4)
    assert (row.tiles_per_s, row.mpx_per_s) == (pytest.approx(4), pytest.approx(4))
    assert (row.prepare_ms, row.network_ms, row.undo_ms) == (pytest.approx(10), pytest.approx(200), pytest.approx(20))
    assert row.around_share == pytest.approx(0.25)


def test_the_split_adds_up_to_the_whole(tmp_path):
    with open_model(write_pointwise(tmp_path / "red.onnx", Spec(tile=256))) as model:
        row = latency(model, [scene(0, 256).image], views=8, seconds=0.2)
    assert row.calls >= 3
    parts = row.prepare_ms + row.network_ms + row.undo_ms
    assert 0.3 * row.p50_ms < parts < 3 * row.p50_ms
    assert min(row.prepare_ms, row.network_ms, row.undo_ms) > 0


def test_a_ratio_is_of_runs_in_turn():
    order = []
    found = ratio(lambda: order.append("ours"), lambda: order.append("theirs"), "x", rounds=3)
    assert order == ["ours", "theirs", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert found.least <= found.median <= found.most


def test_the_machine_is_named():
    found = machine()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["versions"]["numpy"] == np.__version__
    assert peak_bytes() > 10e6


def test_the_command_runs_the_embedded_network(tmp_path, monkeypatch):
    monkeypatch.setenv("DLINK_CACHE", str(tmp_path))
    record = tmp_path / "results.jsonl"
    options = ["--tile", "128", "--views", "1,8", "--seconds", "0.1", "--baseline", "torch", "--rounds", "1"]
    for _ in range(2):
        result = CliRunner().invoke(bench, [*options, "--json", "--append", str(record)])
        assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(lines) == 2
    assert json.loads(result.stdout) == lines[1]
    assert [row["views"] for row in lines[0]["latency"]] == [1, 8]
    assert lines[0]["network"] == {"arch": "dlinknet34", "width": 0.25, "tile": 128, "precision": "fp16", "slim": 1.0}
    assert lines[0]["baseline"]["median"] > 0


def test_the_table_has_a_row_for_each_number_of_views(tmp_path):
    path = write_pointwise(tmp_path / "red.onnx", Spec(tile=128))
    result = CliRunner().invoke(bench, [str(path), "--views", "1,4", "--seconds", "0.1"])
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines() if line[:8].strip().isdigit()] == ["1", "4"]
    assert "peak memory" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--views", "1,x"], "--views 1,x: must be numbers or adaptive, separated by commas"),
        (["--views", "3"], "views must be 8, 4, 1 or adaptive, got 3"),
        (["--tile", "100"], "tile must be a positive multiple of 32"),
    ],
)
def test_bad_options_are_one_line(tmp_path, monkeypatch, options, message):
    monkeypatch.setenv("DLINK_CACHE", str(tmp_path))
    result = CliRunner().invoke(bench, ["--tile", "128", "--seconds", "0.1", *options])
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


INT8_128 = ["--precision", "int8", "--tile", "128", "--views", "1", "--seconds", "0.1", "--json"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with the embedded network in int8, which takes a minute to make."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLINK_CACHE", str(folder))
        result = CliRunner().invoke(bench, INT8_128)
    assert result.exit_code == 0, result.output
    return folder


def test_int8_is_made_once_from_the_embedded_network_and_kept(cache, monkeypatch):
    monkeypatch.setenv("DLINK_CACHE", str(cache))
    made = {p: p.stat().st_mtime_ns for p in cache.iterdir()}
    assert {p.name.split("-")[0] for p in made} == {"dlinknet34", "int8"}
    second = CliRunner().invoke(bench, INT8_128)
    assert {p: p.stat().st_mtime_ns for p in made} == made
    found = json.loads(second.stdout)
    assert found["network"]["precision"] == "int8"
    assert saturates() or found["executed"]["int8"] > 0.95


def test_three_precisions_side_by_side(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("DLINK_CACHE", str(cache))
    options = ["--compare", "--tile", "128", "--rounds", "1", "--append", str(tmp_path / "r.jsonl")]
    result = CliRunner().invoke(bench, options)
    assert result.exit_code == 0, result.output
    rows = {r["precision"]: r for r in json.loads((tmp_path / "r.jsonl").read_text())["compare"]}
    assert list(rows) == ["fp32", "fp16", "int8"]
    assert rows["fp32"]["bytes"] > rows["fp16"]["bytes"] > rows["int8"]["bytes"]
    assert saturates() or rows["int8"]["executed"]["int8"] > 0.95
    assert "int8" not in rows["fp16"]["executed"]
    assert rows["fp32"]["scores"][0]["agreement"] == 1
    assert 0.9 < rows["int8"]["scores"][1]["agreement"] < 1
    assert result.stdout.splitlines()[-1].startswith("INT8 is ")


@pytest.mark.parametrize(
    ("int8_ms", "words"), [(96.0, "not faster than FP16 on this machine (1.04 times): use"), (50.0, "2.00")]
)
def test_the_advice_follows_the_times(int8_ms, words):
    times = {"fp16": 100.0, "int8": int8_ms}
    rows = [FileRow(p, 1, {}, ms / 8, ms, ()) for p, ms in times.items()]
    assert words in advice(rows)


def test_a_comparison_makes_its_own_files(tmp_path):
    path = write_pointwise(tmp_path / "red.onnx", Spec(tile=128))
    result = CliRunner().invoke(bench, [str(path), "--compare"])
    assert result.exit_code == 1
    assert "red.onnx: --compare makes its own files; give a checkpoint" in result.output
