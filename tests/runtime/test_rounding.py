"""No verdict hangs on rounding: what lies within it of the threshold takes the reference's side, and that is said."""

import copy
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dlink.accuracy.agreement import compare
from dlink.accuracy.report.evidence import Evidence
from dlink.calib.calibrate import AS_GOOD, Cost, first_of_the_best, worst_first
from dlink.calib.evaluator import Evaluator, scores_in_words
from dlink.calib.sample import Tile
from dlink.cli.check import check
from dlink.export.onnx_file import write_onnx
from dlink.export.proof import prove
from dlink.imagery.images import find_tiles, write_image
from dlink.nets.checkpoint import write_checkpoint
from dlink.nets.folding import fold_norms
from dlink.nets.zoo import build, spec_of
from dlink.runtime import CheckFailed, Spec, open_model
from dlink.runtime.rounding import NOISE, Near, settle
from tests.export.test_export import SIDE, tiles
from tests.support.calibrated import QUIET
from tests.support.command import call
from tests.support.models import red, write_conv

SAID = (
    "50.0 % of the pixels lie within 1e-05 of the threshold, where rounding decides: the reference's side is taken "
    "there"
)


def settled(candidate, reference, thresholds=(0.5, 0.5)):
    """The candidate's road and the count, of single probabilities."""
    pair = [(np.full(1, p, np.float32), t) for p, t in zip((candidate, reference), thresholds, strict=True)]
    mask, _, near = settle(pair)
    return bool(mask[0]), (near.undecided, near.settled)


@pytest.mark.parametrize("road", [True, False])
def test_within_the_noise_the_candidate_takes_the_references_side(road):
    side = 3e-7 if road else -3e-7
    assert settled(0.5 - side, 0.5 + side) == (road, (1, 1))
    assert settled(0.5 + side, 0.5 + side) == (road, (1, 0))


def test_a_probability_at_the_threshold_itself_is_within_the_noise():
    assert settled(np.nextafter(np.float32(0.5), 1), 0.5) == (False, (1, 1))


@pytest.mark.parametrize("by", [1.1e-5, 2e-5, 1e-3])
def test_a_difference_above_the_noise_counts_in_full(by):
    assert settled(0.5 + by / 2, 0.5 - by / 2) == (True, (0, 0))
    assert settled(0.5 - by / 2, 0.5 + by / 2) == (False, (0, 0))


def test_a_pixel_is_undecided_only_where_both_are_near():
    assert settled(0.5 - 0.4 * NOISE, 0.5 + 1.1 * NOISE) == (False, (0, 0))
    assert settled(0.5 + 1.1 * NOISE, 0.5 - 0.4 * NOISE) == (True, (0, 0))


def test_each_model_has_its_own_threshold():
    assert settled(0.9 - 1e-6, 0.25 + 1e-6, (0.9, 0.25)) == (True, (1, 1))
    assert settled(0.5, 0.5, (0.6, 0.4)) == (False, (0, 0))


def test_only_what_matters_is_said():
    assert Near(1000, 0, 0).words == Near(100_000, 99, 0).words == Near().words == ""
    assert Near(1000, 31, 0).words.startswith("3.1 % of the pixels lie within 1e-05 of the threshold")
    assert Near(100_000, 1, 1).words.startswith("under 0.1 % of the pixels")
    assert Near(10, 3, 1) + Near(20, 4, 2) == Near(30, 7, 3)


def on_the_threshold(path, moved):
    """A file in float32, its network with probabilities higher by `moved`, and a threshold between the two almost
    everywhere: the U-Net's one plane gives a single value there."""
    torch.manual_seed(0)
    net = build("unet", 0.125).eval()
    x = torch.from_numpy(spec_of("unet", tile=SIDE).prepare(np.stack(tiles())))
    other = copy.deepcopy(net)
    with torch.inference_mode():
        middle = net(x).median().item()
        other.conv_last[0].bias += moved / (middle * (1 - middle))
        assert (np.abs(net(x).numpy() - middle) < NOISE).mean() > 0.9
    write_onnx(fold_norms(net), Spec(arch="unet", width=0.125, tile=SIDE), path)
    return other, Spec(arch="unet", width=0.125, tile=SIDE, precision="fp16", threshold=middle + moved / 2)


def test_export_proves_what_rounding_moves_across_the_threshold_and_says_so(tmp_path):
    net, spec = on_the_threshold(tmp_path / "net.onnx", 2e-6)
    seen = prove(tmp_path / "net.onnx", net, fold_norms(net), spec, tiles())
    assert seen.agreement >= 0.995
    assert seen.near.settled > 0.9 * seen.near.pixels
    assert "of the pixels lie within 1e-05 of the threshold" in seen.near.words


@pytest.mark.parametrize("moved", [2e-5, 1e-3])
def test_export_refuses_masks_that_more_than_rounding_moved(tmp_path, moved):
    net, spec = on_the_threshold(tmp_path / "net.onnx", moved)
    with pytest.raises(CheckFailed, match=r"masks agree at IoU 0\.0\d+, at least 0\.995 is needed"):
        prove(tmp_path / "net.onnx", net, fold_norms(net), spec, tiles())


def test_dlink_export_says_where_rounding_decides(tmp_path):
    net = build("dlinknet34", 0.125)
    torch.nn.init.zeros_(net.finalconv3.weight)
    torch.nn.init.zeros_(net.finalconv3.bias)
    write_checkpoint(net, tmp_path / "net.th")
    said = call("export", tmp_path / "net.th", tmp_path / "net.onnx", "--tile", 64).stderr
    assert said.startswith("note: 100.0 % of the pixels lie within 1e-05 of the threshold")


@pytest.fixture
def pair(tmp_path):
    """A candidate whose probabilities are higher by `moved` on the left half of a labelled tile, where the threshold
    lies between the two; the right half is road to both, the label."""
    image = np.full((64, 64, 3), 250, np.uint8)
    image[:, :32] = 150
    label = image[..., 0] == 250
    write_image(tmp_path / "1_sat.png", image)
    write_image(tmp_path / "1_mask.png", np.where(label, 255, 0).astype(np.uint8))
    p = float(red(image)[0, 0])

    def written(moved):
        slope = p * (1 - p) * (150 / 255 * 3.2 - 1.6)  # of the probability, by the weight
        spec = Spec(tile=64, threshold=p + moved / 2)
        files = [tmp_path / "candidate.onnx", tmp_path / "reference.onnx"]
        for path, weight in zip(files, (2 + moved / slope, 2), strict=True):
            write_conv(path, spec, np.full((1, 1), weight))
        return files, find_tiles(tmp_path), Tile("1", image, label)

    return written


def found(files, chosen, **more):
    candidate, reference = (open_model(path, threads=1) for path in files)
    with candidate, reference:
        return compare(candidate, reference, chosen, (1,), **more).settings[0]


def test_a_check_compares_settled_masks_throughout(pair):
    files, chosen, _ = pair(2e-6)
    evidence, looked = Evidence(), []
    connectivity = lambda label: lambda mask: looked.append(mask.mean()) or (1.0, 0.0, 0.0, 1.0)  # noqa: E731
    s = found(files, chosen, evidence=evidence, connectivity=connectivity)
    assert (s.agreement, s.worst, s.drop.pooled, s.each[0].candidate) == (1.0, 1.0, 0.0, 1.0)
    assert (s.estimates["agreement"].value, s.estimates["iou"].value) == (1.0, 0.0)
    assert (s.near, looked) == (Near(4096, 2048, 2048), [0.5, 0.5])
    pictures = {p.title: p.data for p in evidence.worst()[0].pictures}
    assert pictures["candidate"] == pictures["reference"] == pictures["label"]


def test_a_check_counts_more_than_rounding(pair):
    files, chosen, _ = pair(2e-5)
    s = found(files, chosen)
    assert (s.agreement, s.drop.pooled, s.near) == (0.5, 0.5, Near(4096, 0, 0))


def test_dlink_check_says_where_rounding_decides(pair, tmp_path):
    files, *_ = pair(2e-6)
    page = tmp_path / "report.html"
    asked = [str(files[0]), str(tmp_path), "--against", str(files[1]), "--views", "1"]
    text = CliRunner().invoke(check, [*asked, "--report", str(page)])
    assert text.exit_code == 0, text.output
    assert text.stdout.splitlines()[-1].endswith(f"; with 1 view {SAID}")
    assert SAID.replace("'", "&#x27;") in page.read_text()
    values = json.loads(CliRunner().invoke(check, [*asked, "--json"]).stdout)
    assert values["notes"] == [f"with 1 view {SAID}"]
    assert values["agreement"]["settings"][0]["near"] == {"pixels": 4096, "undecided": 2048, "settled": 2048}


@pytest.mark.parametrize(("moved", "agreement"), [(2e-6, 1.0), (2e-5, 0.5)])
def test_calibrations_judge_settles_masks_as_a_check_does(pair, moved, agreement):
    files, _, tile = pair(moved)
    scores = Evaluator(files[1], [tile], QUIET).score(files[0])
    assert [(s.agreement, s.drop) for s in scores] == [(agreement, 1 - agreement)] * 2
    assert (f"with 1 view ({SAID})" in scores_in_words(scores)) == (moved < NOISE)


def test_of_methods_that_agree_as_well_the_first_is_taken():
    assert first_of_the_best({"entropy": 0.99, "percentile": 0.9931, "mse": 0.9931 + AS_GOOD / 2}) == "percentile"
    assert first_of_the_best({"entropy": 0.99, "percentile": 0.9931, "mse": 0.9931 + AS_GOOD * 2}) == "mse"


def test_of_layers_that_cost_as_much_the_first_is_reverted():
    costs = [Cost(at, error, 1e-3) for at, error in enumerate((0.1, 0.3, 0.1 + AS_GOOD / 9, 0.2))]
    assert [cost.at for cost in worst_first(costs)] == [1, 3, 0, 2]
