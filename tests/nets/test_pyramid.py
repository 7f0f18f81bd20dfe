"""PP-LinkNet's pyramid: exported as matrices that are PyTorch's own pools and resizes."""

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from dlink.nets.checkpoint import read_checkpoint
from dlink.nets.pyramid import BINS, pool_matrix, resize_matrix
from dlink.nets.zoo import build, spec_of
from tests.export.test_export import SIDE, tiles, trained
from tests.support.calibrated import run, small
from tests.support.models import shared

SIDES = (1, 2, 4, 7, 13, 26, 32, 64, 128)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("bins", BINS)
def test_matrices_pool_and_resize_as_pytorch_does(side, bins):
    x = torch.randn(1, 2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pool, back = (torch.from_numpy(m.astype(np.float64)) for m in (pool_matrix(side, bins), resize_matrix(side, bins)))
    pooled = pool @ x @ pool.T
    torch.testing.assert_close(pooled, functional.adaptive_avg_pool2d(x, bins), rtol=0, atol=1e-6)
    resized = functional.interpolate(pooled, (side, side), mode="bilinear")
    torch.testing.assert_close(back @ pooled @ back.T, resized, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tile", [64, 96, 416])
def test_matrices_are_those_of_the_files_tile_not_of_the_traced_one(tile, tmp_path):
    """The exporter runs 64 px; the file is for its own tile."""
    from dlink.export.onnx_file import write_onnx
    from dlink.nets.folding import fold_norms

    found = trained("pplinknet34-psp")
    spec = spec_of("pplinknet34-psp", width=0.125, tile=tile)
    write_onnx(fold_norms(found.net), spec, tmp_path / "net.onnx")
    x = spec.prepare(np.resize(tiles()[0], (1, tile, tile, 3)))
    with torch.inference_mode():
        expected = found.net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), expected, atol=1e-5)


def test_the_graph_has_nothing_but_plain_operators(tmp_path):
    ops = {n.op_type for n in onnx.load(small("pplinknet34-psp64", tmp_path / "net.onnx")).graph.node}
    plain = {"Conv", "ConvTranspose", "Relu", "MaxPool", "Add", "Concat", "MatMul", "Sigmoid", "Cast"}
    assert ops <= plain, ops - plain


def test_preparation_is_pp_linknets_own():
    spec = spec_of("pplinknet34-psp64")
    x = spec.prepare(np.full((1, 1, 1, 3), 255, np.uint8))[0, :, 0, 0]
    mean, deviation = (0.3262061, 0.39206991, 0.41451698), (0.11344261, 0.1211441, 0.14105087)
    np.testing.assert_allclose(x, (1 - np.array(mean)) / deviation, rtol=1e-5)
    assert spec.threshold == 0.25
    assert spec_of("pplinknet34-psp", threshold=0.4).threshold == 0.4


@pytest.mark.parametrize(
    ("arch", "side", "dilations"),
    [
        ("pplinknet34-psp", 8, {1}),
        ("pplinknet34-psp64", 16, {1}),
        ("pplinknet34-psp128", 32, {1}),
        ("pplinknet34-psp64-hdc", 16, {1, 2, 5}),
    ],
)
def test_the_centre_keeps_the_size_that_the_name_says(arch, side, dilations):
    net = build(arch, 0.125).eval()
    seen = []
    net.dblock.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-1]))
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 256, 256)).shape[-1] == 256
    assert seen == [side]
    stages = [net.encoder3, net.encoder4]
    assert {block.conv2.dilation[0] for stage in stages for block in stage} == dilations


def test_published_hdc_files_have_the_pyramid_elsewhere_and_a_centre_that_is_not_used(tmp_path):
    state = build("pplinknet34-psp64-hdc", 0.125).state_dict()
    published = {k.replace("dblock.", "psp.", 1): v for k, v in state.items()}
    published["dblock.dilate1.weight"] = torch.zeros(64, 64, 3, 3)
    torch.save(published, tmp_path / "net.th")
    found = read_checkpoint(tmp_path / "net.th")
    assert (found.arch, found.width) == ("pplinknet34-psp64-hdc", 0.125)
    assert torch.equal(found.net.dblock.bottleneck.weight, state["dblock.bottleneck.weight"])


def test_the_shared_checkpoint_is_no_pyramid():
    assert read_checkpoint(shared("checkpoints/dinknet34.th")).arch == "dlinknet34"
    assert SIDE % 32 == 0
