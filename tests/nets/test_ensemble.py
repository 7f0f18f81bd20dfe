"""Ensembles: several checkpoints, one file, one input, the weighted mean of their probabilities."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from dlink.calib.network import read_network
from dlink.calib.placement import place
from dlink.export.export import export
from dlink.export.onnx_file import write_onnx
from dlink.nets.checkpoint import write_checkpoint
from dlink.nets.ensemble import ensemble
from dlink.nets.folding import fold_norms
from dlink.nets.multiply_adds import total
from dlink.nets.zoo import spec_of
from dlink.onnx_graph.model import read_model
from dlink.runtime import BadInput, Spec, open_model
from tests.export.test_export import SIDE, tiles, trained
from tests.support.calibrated import folder_of, quantise, run
from tests.support.command import call
from tests.support.models import save

SLIDES = {
    "two": (("unet", "linknet34"), (0.5, 0.5)),
    "three": (("unet", "linknet34", "dlinknet34"), (0.25, 0.25, 0.5)),
    "mixed": (("dlinknet34", "pplinknet34-psp64"), (0.5, 0.5)),  # of two preparations
}


def mean_of(members, weights, tile):
    """By PyTorch, each member with its own preparation."""
    total = 0
    for member, weight in zip(members, weights, strict=True):
        x = torch.from_numpy(spec_of(member.arch, tile=SIDE).prepare(tile[None]))
        with torch.inference_mode():
            total = total + weight * member.net(x)[0, 0].numpy()
    return total


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", SLIDES)
def test_a_file_gives_the_weighted_mean_of_its_members(name, precision, tmp_path):
    archs, weights = SLIDES[name]
    members = [trained(arch) for arch in archs]
    spec = Spec(arch="+".join(archs), width=0.125, tile=SIDE, precision=precision)
    write_onnx(fold_norms(ensemble(members, weights).net), spec, tmp_path / "net.onnx")
    assert [i.name for i in onnx.load(tmp_path / "net.onnx").graph.input] == ["image"]
    with open_model(tmp_path / "net.onnx") as model:
        for tile in tiles():
            found = model.probabilities(tile, views=1)
            np.testing.assert_allclose(
                found, mean_of(members, weights, tile), atol=1e-4 if precision == "fp32" else 0.1
            )


@pytest.mark.parametrize("name", SLIDES)
def test_an_ensemble_is_quantised_and_compiled_like_any_network(name, tmp_path):
    archs, weights = SLIDES[name]
    spec = Spec(arch="+".join(archs), width=0.125, tile=SIDE)
    path = tmp_path / "net.onnx"
    export(ensemble([trained(arch) for arch in archs], weights), path, spec, tiles())
    last = [u for u in place(read_network(path), "int8") if u.why == "the last convolution"]
    assert len(last) == len(archs)
    model = quantise(path)
    onnx.checker.check_model(model)
    x = spec.prepare(tiles()[0][None])
    assert np.corrcoef(run(model, x).ravel(), run(path, x).ravel())[0, 1] > 0.97
    save(model, path)
    assert read_model(path).shares()["int8"] > 0.8
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'dlink[test]' on Linux x86-64")
    from tests.engine.test_compilers import compile

    assert compile(path).manifest.spec.arch == "+".join(archs)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    home = tmp_path_factory.mktemp("members")
    for arch in ("unet", "linknet34"):
        write_checkpoint(trained(arch).net, home / f"{arch}.th")
    return home


def test_dlink_export_makes_one_file_that_the_others_take(files, tmp_path):
    roads = folder_of(tmp_path / "tiles", 1, SIDE)
    out = tmp_path / "ensemble.onnx"
    members = [files / "unet.th", files / "linknet34.th"]
    said = call("export", *members, "--weights", "0.5,0.5", "-o", out, "--tile", SIDE, "--tiles", roads).stdout
    assert "unet+linknet34 width 0.125" in said
    call("export", *members, tmp_path / "equal.onnx", "--tile", SIDE, "--tiles", roads)
    assert "same roads" in call("check", tmp_path / "equal.onnx", roads, "--against", out).stdout
    call("segment", out, roads / "0_sat.png", "-o", tmp_path / "mask.png")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["unet.th", "linknet34.th", "x.onnx", "--weights", "1"], "--weights: 1 numbers for 2 checkpoints"),
        (["unet.th", "linknet34.th", "x.onnx", "--weights", "0.5,0.6"], "must be positive and sum to 1"),
        (["unet.th", "linknet34.th", "x.onnx", "--weights", "1.5,-0.5"], "must be positive and sum to 1"),
        (["unet.th", "linknet34.th", "x.onnx", "--weights", "nan,1"], "must be positive and sum to 1"),
        (["unet.th", "linknet34.th", "x.onnx", "--weights", "half"], "expected numbers separated by commas"),
        (["unet.th", "linknet34.th"], "linknet34.th: the file to write is missing after it"),
        (["x.onnx"], "x.onnx: a checkpoint is missing in front of it"),
        (["none.th", "x.onnx"], "none.th: there is no such checkpoint"),
        (["unet.th", "linknet34.th", "x.onnx", "--arch", "unet"], "--arch: is for one checkpoint"),
        (["unet.th", "x.onnx", "--tile", "96"], "unet halves the tile down to 1/128"),
    ],
)
def test_what_makes_no_ensemble_is_refused_in_one_line(args, message, files, monkeypatch):
    monkeypatch.chdir(files)
    said = call("export", *args, code=1).stderr
    assert message in said
    assert said.count("\n") == 1
    assert not (files / "x.onnx").exists()


def test_of_networks_with_the_same_keys_one_is_taken_and_said(files, tmp_path):
    write_checkpoint(trained("pplinknet34-psp").net, tmp_path / "pp.th")
    args = ["export", tmp_path / "pp.th", tmp_path / "pp.onnx", "--tile", 64]
    assert "note: read as pplinknet34-psp64; pplinknet34-psp128, " in call(*args).stderr
    assert "note: taken" not in call(*args, "--arch", "pplinknet34-psp").stderr
    with pytest.raises(BadInput):
        ensemble([trained("unet")], (0.5, 0.5))


def test_the_share_of_slim_members_is_that_of_all_multiply_adds(tmp_path):
    whole, part = trained("linknet34"), replace(trained("dlinknet34"), slim=0.5)
    work = [total(member.net, Spec.tile) for member in (whole, part)]
    expected = sum(work) / (work[0] + 2 * work[1])
    for members in ([whole, part], [part, whole]):
        assert ensemble(members, (0.5, 0.5)).slim == pytest.approx(expected)
    assert ensemble([whole, whole], (0.5, 0.5)).slim == 1
