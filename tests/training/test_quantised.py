"""Quantisation-aware fine-tuning: the network that is trained is the one that is written."""

import numpy as np
import onnx
import pytest
import torch

from dlink.calib.calibrate import CalibrationResult
from dlink.calib.network import read_network
from dlink.calib.placement import place
from dlink.calib.qdq import write_qdq
from dlink.calib.ranges import gather
from dlink.calib.rescale import rescale
from dlink.calib.sample import Sample, Tile, digest
from dlink.export.export import export
from dlink.nets.checkpoint import read_checkpoint
from dlink.nets.embedded import EMBEDDED
from dlink.nets.zoo import ARCHS, spec_of
from dlink.openvino_runtime.saturation import saturates
from dlink.runtime import BadInput, CheckFailed, Spec, open_model
from dlink.scenes import with_roads
from dlink.training.quantised import FineTuned, FineTuneOptions, Quantised, finetune, weight_as_int8
from tests.support.calibrated import QUIET, folder_of, ranges_of, run, small
from tests.support.command import call

SIDE = 128


@pytest.mark.parametrize("arch", ARCHS)
def test_what_is_trained_is_what_is_written(arch, tmp_path):
    """In float the file's own values; in int8 those of its Q/DQ graph, but for roundings that fall the other way."""
    graph = read_network(small(arch, tmp_path / "net.onnx"))
    ranges = ranges_of(graph)
    scaled = rescale(graph, ranges.factors(graph))
    units, limits = place(scaled, "int8"), ranges.limits("max")
    x = spec_of(arch, tile=SIDE).prepare(with_roads(1, SIDE, 9)[0].image[None])
    with torch.inference_mode():
        plain = Quantised(scaled, [], {})(torch.from_numpy(x)).numpy()
        fake = Quantised(scaled, units, limits)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(plain, run(tmp_path / "net.onnx", x), atol=1e-4)
    written = run(write_qdq(scaled, units, limits, {}, "fp32"), x)
    lost = np.sqrt(np.mean((written - plain) ** 2))
    assert np.sqrt(np.mean((written - fake) ** 2)) < 0.5 * lost + 1e-6


def test_weights_are_rounded_as_in_the_file_and_learn_all_the_same():
    weight = torch.tensor([[[[1.27, -0.634]]], [[[12.7, 0.049]]]], requires_grad=True)
    rounded = weight_as_int8(weight, 0)
    torch.testing.assert_close(rounded.flatten(), torch.tensor([1.27, -0.63, 12.7, 0.0]))
    rounded.sum().backward()
    assert weight.grad.eq(1).all()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The embedded network as a float file, with ranges and tiles."""
    folder = tmp_path_factory.mktemp("home")
    read = read_checkpoint(EMBEDDED)
    made = with_roads(80, SIDE, 3_000_000)
    tiles = tuple(Tile(str(i), s.image, s.mask > 0) for i, s in enumerate(made))
    sample = Sample(tiles[:64], tiles[64:], (), digest(tiles[:64]))
    export(read, folder / "net.onnx", Spec(width=0.25, tile=SIDE), [t.image for t in tiles[:2]])
    gather(read_network(folder / "net.onnx"), sample, True, QUIET).write(folder / "ranges.json")
    return folder, sample


def quiet(title):
    return QUIET


def test_a_hard_setting_is_won_back_in_part(home, tmp_path):
    """Everything int8, and ranges so wide that a fifth of the steps is used."""
    folder, sample = home
    out = tmp_path / "int8.onnx"
    given = {"everything": True, "method": "max", "stretch": 6.0, "epochs": 6, "rate": 1e-5}
    tuned = finetune(folder / "net.onnx", folder / "ranges.json", out, sample, FineTuneOptions(**given), quiet)
    assert tuned.result.share == pytest.approx(1.0)
    assert tuned.before[0].drop > 0.01
    assert tuned.result.scores[0].error < 0.95 * tuned.before[0].error
    assert tuned.result.scores[0].agreement > tuned.before[0].agreement
    onnx.checker.check_model(onnx.load(out))
    with open_model(out) as model:
        assert model.spec.precision == "int8"
        assert model.spec.int8_method == "max, fine-tuned"
        assert saturates() or model.backend.executed["int8"] > 0.9


def test_nothing_is_written_where_it_came_no_nearer(home, tmp_path):
    folder, sample = home
    how = FineTuneOptions(epochs=1, rate=1e-2)
    with pytest.raises(CheckFailed, match=r"came no nearer to the float network|the loss is nan"):
        finetune(folder / "net.onnx", folder / "ranges.json", tmp_path / "x.onnx", sample, how, quiet)
    assert list(tmp_path.iterdir()) == []


def test_an_operator_of_others_is_named():
    from dlink.training.quantised import run as run_node

    node = onnx.helper.make_node("Erf", ["x"], ["y"], "strange")
    with pytest.raises(
        BadInput, match=r"strange: Erf is not an operator that can be fine-tuned; dlink-calibrate alone"
    ):
        run_node(node, [torch.zeros(1)])


def test_dlink_finetune_fine_tunes_from_the_command_line(home, tmp_path, monkeypatch):
    folder, _ = home
    tiles = folder_of(tmp_path / "tiles", 10, SIDE)
    args = [
        "finetune",
        tiles,
        "--ranges",
        folder / "ranges.json",
        "--init",
        folder / "net.onnx",
        "--epochs",
        2,
        "--seed",
        2,
    ]
    asked = {}
    found = FineTuned(CalibrationResult("max", (), (), 4, 0, None), (), (0.1,))

    def instead(source, ranges, out, sample, how, progress):
        asked.update(how=how, tiles=len(sample.tiles))
        return found

    monkeypatch.setattr("dlink.training.quantised.finetune", instead)
    said = call(*args, "-o", tmp_path / "out.onnx", "--everything").stdout
    assert f"fine-tuned on {asked['tiles']} tiles" in said
    assert "calibration alone: " in said
    assert asked["how"] == FineTuneOptions(epochs=2, seed=2, everything=True)
    for wrong, message in (
        (["-o", tmp_path / "out.th"], "the float ONNX file and the INT8 one to write; both end in .onnx"),
        (["-o", folder / "net.onnx"], "would be replaced; choose another output"),
    ):
        assert message in call(*args, *wrong, code=1).stderr
