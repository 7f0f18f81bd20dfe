"""`dlink-scout`: the table, the copy that carries the limit, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from dlink.cli.bench import bench
from dlink.cli.check import check
from dlink.cli.inspect import inspect
from dlink.cli.scout import scout as command
from dlink.imagery.images import write_image
from dlink.runtime import Spec, open_model
from dlink.runtime.files import file_sha256
from dlink.runtime.onnx_bytes import read_onnx
from tests.support.models import write_conv, write_pointwise

SIDE = 32
SPEC = Spec(tile=SIDE, views=(0,))


@pytest.fixture
def folder(tmp_path):
    """A large network, a scout that sees the same but is less sure, and 40 tiles with road and 20 without."""
    write_pointwise(tmp_path / "roads.onnx", SPEC)
    write_conv(tmp_path / "scout.onnx", replace(SPEC, width=0.25), np.full((1, 1), 1.0))
    (tmp_path / "tiles").mkdir()
    for i in range(60):
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[8:24, :, 0] = 255 if i < 40 else 60
        write_image(tmp_path / "tiles" / f"{i:02}_sat.png", image)
    return tmp_path


def run(folder, *options, model="roads.onnx", small="scout.onnx"):
    given = [str(folder / model), str(folder / small), str(folder / "tiles"), *map(str, options)]
    return CliRunner().invoke(command, given)


def test_the_copy_carries_the_limit_and_opens_with_the_model_that_it_is_for(folder):
    out = folder / "scouted.onnx"
    result = run(folder, "--missed", "0.12", "-o", out)
    assert result.exit_code == 0, result.output
    limit = read_onnx(out).spec.scout
    assert (limit.missed, limit.confidence, limit.threshold) == (0.12, 0.95, 0.5)
    assert limit.large_sha256 == file_sha256(folder / "roads.onnx")
    assert 20 < limit.tiles < 40
    assert (limit.views, limit.halo) == (1, 8)
    said = CliRunner().invoke(inspect, [str(out)]).stdout.splitlines()[-1]
    assert said.startswith("a scout: skips a tile where at most 0.1% of it exceeds level ")
    assert f"at most 0.12 is missed with confidence 0.95, from {limit.tiles} tiles with road" in said
    with open_model(folder / "roads.onnx", scout=out) as model:
        model.mask(np.zeros((SIDE, SIDE, 3), np.uint8))
        assert model.backend.skipped == 1
    graphs = [
        onnx.load_model(path).graph.SerializeToString(deterministic=True) for path in (folder / "scout.onnx", out)
    ]
    assert graphs[0] == graphs[1]
    assert replace(read_onnx(out).spec, scout=None) == read_onnx(folder / "scout.onnx").spec


def test_the_table_shows_the_limit_and_the_tiles_kept_back(folder):
    result = run(folder, "--missed", "0.12")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(
        "scout.onnx before roads.onnx with 1 view and a halo of 8 px, whose road is above 0.5; 0 tiles with a label"
    )
    assert lines[1].split() == ["level", "skipped", "missed", "at", "most", "of", "pixels"]
    chosen = next(line for line in lines if line.endswith("<"))
    assert chosen.split()[2:5:2] == ["0.000%", "0.000%"]
    assert "is missed, at most 12.000% with confidence 0.95" in result.stdout
    assert "kept back: " in result.stdout
    assert lines[-1] == "nothing is written without --output SCOUT.onnx"
    assert not (folder / "scouted.onnx").exists()


def test_json_has_the_same(folder):
    values = json.loads(run(folder, "--missed", "0.12", "--json").stdout)
    assert values["asked"] == 0.12
    assert values["chosen"]["missed"] == 0
    assert values["held"]["windows"] == 15
    assert values["chosen"]["level"] in [row["level"] for row in values["rows"]]


def test_too_few_tiles_are_refused_with_how_many_would_do(folder):
    result = run(folder, "--missed", "0.01")
    assert result.exit_code == 1
    assert "--missed 0.01 with confidence 0.95 takes 299 tiles with road to calibrate on" in result.stderr


def test_networks_that_differ_are_refused_before_tiles_are_computed(folder):
    write_pointwise(folder / "scout.onnx", replace(SPEC, target="building"))
    result = run(folder)
    assert result.exit_code == 1
    assert "has a target of building" in result.stderr


def test_check_compares_what_both_draw_together_and_bench_counts_what_is_skipped(folder):
    out = folder / "scouted.onnx"
    assert run(folder, "--missed", "0.12", "-o", out).exit_code == 0
    model, tiles = str(folder / "roads.onnx"), str(folder / "tiles")
    given = [model, tiles, "--against", model, "--views", "1", "--json", "--scout", str(out)]
    same = json.loads(CliRunner().invoke(check, given).stdout)
    assert same["agreement"]["settings"][0]["agreement"] == 1
    result = CliRunner().invoke(
        bench, [model, "--tiles", tiles, "--views", "1", "--seconds", "0.1", "--scout", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "% of the tiles were skipped, and the times depend on that" in result.stdout
    assert "; scout: OpenVINO" in result.stdout


def test_a_scout_is_not_for_a_comparison_of_other_files(folder):
    result = CliRunner().invoke(bench, ["--compare", "--scout", str(folder / "scout.onnx")])
    assert result.exit_code == 1
    assert "--compare makes its own files, and --scout is for one" in result.stderr


@pytest.mark.parametrize("way", ["torch", "best-torch"])
def test_one_tile_beside_pytorch_is_no_measure_of_a_scout(folder, monkeypatch, way):
    monkeypatch.setattr("dlink.cli.models.model_file", None)
    given = [str(folder / "roads.onnx"), "--baseline", way, "--scout", str(folder / "scout.onnx")]
    result = CliRunner().invoke(bench, given)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: --baseline {way}: times one tile, and with --scout that tile would decide")
    assert "python -m dlink.bench.together" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("scouted.plan", "the name must end in .onnx"),
        ("scout.onnx", "the model itself"),
        ("no/x.onnx", "there is no folder"),
    ],
)
def test_an_output_that_will_not_do_is_refused(folder, out, said):
    result = run(folder, "-o", folder / out)
    assert result.exit_code == 1
    assert said in result.stderr
