import json

import numpy as np
import pytest

from dlink.accuracy.agreement import Agreement, Each, Setting, compare
from dlink.accuracy.gates import GateLimits
from dlink.accuracy.iou import IoU, Overlap
from dlink.imagery.images import find_tiles, write_image
from dlink.runtime import BadInput, EngineFailed, HostBackend, Segmenter, Spec, open_model
from tests.support.models import red, write_conv, write_pointwise

SIDE = 32


def stripes(rows):
    """An image whose rows have these values of red; 0 and 150 and 250 are below, between and above 0.5 and 0.9."""
    image = np.zeros((len(rows), SIDE, 3), np.uint8)
    image[..., 0] = np.array(rows)[:, None]
    return image


def label(road):
    return np.repeat(np.where(road, 255, 0).astype(np.uint8)[:, None], SIDE, 1)


QUARTERS = [250] * 8 + [150] * 8 + [0] * 16  # the masks of 0.9 and 0.5 have 8 and 16 of 32 rows
BRIGHT = [250] * 64  # both masks are full


@pytest.fixture
def tiles(tmp_path):
    """a agrees to 0.5, b entirely, c has no road in either mask."""
    for id, rows in {"a": QUARTERS, "b": BRIGHT, "c": [0] * 16}.items():
        write_image(tmp_path / f"{id}_sat.png", stripes(rows))
    return tmp_path


@pytest.fixture
def model(tmp_path):
    def opened(threshold=0.5, **spec):
        path = write_pointwise(tmp_path / "model.onnx", Spec(tile=SIDE, threshold=threshold, **spec))
        return open_model(path, threads=1)

    return opened


def test_a_model_agrees_with_itself(tiles, model):
    for s in compare(model(), model(), find_tiles(tiles)).settings:
        assert (s.agreement, s.worst, s.worst_tile, s.max_difference) == (1.0, 1.0, "a", 0.0)


def test_agreement_is_pooled_over_tiles_and_each_mask_has_its_own_threshold(tiles, model):
    for s in compare(model(0.9), model(0.5), find_tiles(tiles)).settings:
        assert s.agreement == (8 + 64) / (16 + 64)


def test_the_worst_tile_is_named(tiles, model):
    s = compare(model(0.9), model(0.5), find_tiles(tiles)).settings[0]
    assert (s.worst, s.worst_tile) == (0.5, "a")


def test_iou_comes_pooled_and_as_a_mean_where_empty_counts_as_one(tiles, model):
    write_image(tiles / "a_mask.png", label([True] * 16 + [False] * 16))
    write_image(tiles / "b_mask.png", label([True] * 64))
    write_image(tiles / "c_mask.png", label([False] * 16))
    found = compare(model(0.9), model(0.5), find_tiles(tiles))
    for s in found.settings:
        assert s.candidate == IoU(pooled=(8 + 64) / (16 + 64), mean=(0.5 + 1 + 1) / 3)
        assert s.reference == IoU(pooled=1.0, mean=1.0)
        assert s.drop == IoU(pooled=1 - 72 / 80, mean=1 - 2.5 / 3)


def test_iou_is_of_the_labelled_tiles_only(tiles, model):
    write_image(tiles / "a_mask.png", label([True] * 16 + [False] * 16))
    found = compare(model(0.9), model(0.5), find_tiles(tiles), (1,))
    assert (found.tiles, found.labelled, found.label_road) == (3, 1, 16 * SIDE)
    assert found.settings[0].candidate == IoU(0.5, 0.5)


def test_the_candidate_may_gain(tiles, model):
    write_image(tiles / "a_mask.png", label([True] * 16 + [False] * 16))
    found = compare(model(0.5), model(0.9), find_tiles(tiles), (1,))
    assert found.settings[0].drop == IoU(-0.5, -0.5)


def test_without_labels_there_is_no_iou(tiles, model):
    found = compare(model(), model(), find_tiles(tiles))
    assert found.labelled == 0
    assert [(s.candidate, s.reference, s.drop) for s in found.settings] == [(None, None, None)] * 2


@pytest.mark.parametrize("shift", [0.1, -0.1])
def test_each_model_is_prepared_by_its_own_spec(tiles, model, shift):
    shifted = model(shift=(-1.6, -1.6, -1.6 + shift))
    s = compare(shifted, model(), find_tiles(tiles), (8,)).settings[0]
    values = np.array([[250, 0, 0], [150, 0, 0], [0, 0, 0]], np.uint8)
    x = values[:, 0] / 255 * 3.2 - 1.6 + shift
    assert s.max_difference == pytest.approx(np.abs(1 / (1 + np.exp(-2 * x)) - red(values)).max(), abs=1e-6)


def test_every_number_of_views_has_its_own_masks(tiles):
    left = np.zeros((1, SIDE, SIDE), np.float32)
    left[..., : SIDE // 2] = 1  # as the network sees it: the mean of eight views is one half everywhere, so no road
    spec = Spec(tile=SIDE)
    candidate = Segmenter(HostBackend(lambda x: left, spec))
    reference = Segmenter(HostBackend(lambda x: np.ones_like(left), spec))
    found = compare(candidate, reference, find_tiles(tiles)[:1])
    assert {s.views: s.agreement for s in found.settings} == {8: 0.0, 1: 0.5}


def test_a_tile_that_cannot_be_read_is_an_error(tiles, model):
    (tiles / "b_sat.png").write_bytes(b"\x89PNG, cut short")
    with pytest.raises(BadInput, match=r"b_sat\.png"):
        compare(model(), model(), find_tiles(tiles))


@pytest.mark.parametrize(("whose", "kernels"), [("candidate", (np.nan, 2)), ("reference", (2, np.nan))])
def test_probabilities_that_are_no_numbers_fail_the_check(tiles, whose, kernels):
    spec = Spec(tile=SIDE)
    pair = [open_model(write_conv(tiles / f"{i}.onnx", spec, np.full((1, 1), k))) for i, k in enumerate(kernels)]
    with pytest.raises(EngineFailed, match=f"tile a, the {whose}: the tile at rows 0 to .*: the network gives values"):
        compare(*pair, find_tiles(tiles), (1,))


def test_no_tiles_are_refused(model):
    with pytest.raises(BadInput, match="0 tiles"):
        compare(model(), model(), [])


def test_progress_is_told_after_each_tile(tiles, model):
    told = []
    compare(model(), model(), find_tiles(tiles), (1,), lambda *words: told.append(words))
    assert told == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]


def test_two_empty_series_have_no_pooled_iou():
    empty = np.zeros((4, 4), bool)
    overlap = Overlap()
    assert overlap.add(empty, empty) == 1.0
    assert overlap.iou() == IoU(None, 1.0)


def found_with(agreement=1.0, candidate=None, reference=None, label_road=100):
    setting = Setting(
        views=8,
        agreement=agreement,
        worst=0.5,
        worst_tile="a",
        max_difference=0.0,
        candidate=candidate and IoU(candidate, 0.0),
        reference=reference and IoU(reference, 0.0),
    )
    return Agreement(3, 3 if candidate else 0, label_road, (setting,))


LIMITS = GateLimits(max_iou_drop=0.25, min_agreement=0.75)


@pytest.mark.parametrize(
    "just_held",
    [found_with(agreement=0.75), found_with(candidate=0.5, reference=0.75), found_with(candidate=0.9, reference=0.1)],
)
def test_a_limit_that_is_just_held_is_held(just_held):
    assert LIMITS.broken(just_held) == []


@pytest.mark.parametrize(
    ("missed", "why"),
    [
        (found_with(agreement=0.7499), "the masks agree to 0.7499 with 8 views, less than 0.75"),
        (found_with(candidate=0.4999, reference=0.75), "IoU drops by 0.2501 with 8 views, more than 0.25"),
        (found_with(agreement=None), "no road in either mask on 3 tiles with 8 views: give tiles with roads"),
        (
            found_with(candidate=0.5, reference=0.5, label_road=0),
            "no road in any of 3 labels: give labels with roads",
        ),
    ],
)
def test_a_limit_that_is_missed_says_why(missed, why):
    assert LIMITS.broken(missed) == [why]


def test_limits_are_the_precisions_where_none_are_given():
    assert [GateLimits.of(p).min_agreement for p in ("fp32", "fp16", "int8")] == [0.99, 0.99, 0.97]
    assert GateLimits.of("int8", 0.0, 0.5) == GateLimits(0.0, 0.5)


@pytest.fixture
def labelled(tiles):
    """The labels are what a threshold of 0.5 draws."""
    write_image(tiles / "a_mask.png", label([True] * 16 + [False] * 16))
    write_image(tiles / "b_mask.png", label([True] * 64))
    write_image(tiles / "c_mask.png", label([False] * 16))
    return tiles


def test_every_tile_has_its_own_figures(labelled, model):
    [s] = compare(model(0.9), model(0.5), find_tiles(labelled), (1,)).settings
    assert s.each == (Each("a", 0.5, 0.5, 1.0), Each("b", 1.0, 1.0, 1.0), Each("c", 1.0, 1.0, 1.0))


def test_precision_and_recall_are_pooled(labelled, model):
    [s] = compare(model(0.5), model(0.9), find_tiles(labelled), (1,)).settings
    assert (s.candidate_roads.precision, s.candidate_roads.recall) == (1, 1)
    assert (s.reference_roads.precision, s.reference_roads.recall) == (1, 72 / 80)


def test_the_intervals_are_over_tiles(labelled, model):
    [s] = compare(model(0.9), model(0.5), find_tiles(labelled), (1,)).settings
    agreement, drop = s.estimates["agreement"], s.estimates["iou"]
    assert (agreement.value, agreement.low, agreement.high) == (0.9, 0.5, 1.0)  # draws of a alone, and of b alone
    assert (drop.value, drop.low, drop.high) == (pytest.approx(0.1), 0.0, 0.5)


def test_without_labels_the_agreement_alone_has_an_interval(tiles, model):
    assert list(compare(model(), model(), find_tiles(tiles), (1,)).settings[0].estimates) == ["agreement"]


def test_graphs_are_looked_at_by_who_is_asked(labelled, model):
    def connectivity(label):
        return lambda mask: (1.0, 2.0, 1.0, 0.5) if mask.sum() < label.sum() else (0.75, 0.0, 0.0, 0.5)

    [s] = compare(model(0.9), model(0.5), find_tiles(labelled), (1,), connectivity=connectivity).settings
    # a alone is drawn short: APLS 1 + 0.75 + 0.75 of three tiles, and two broken links of 1.5 km.
    assert s.candidate_roads.apls == pytest.approx(2.5 / 3)
    assert (s.candidate_roads.broken_per_km, s.candidate_roads.bridged_per_km) == (2 / 1.5, 1 / 1.5)
    assert (s.reference_roads.apls, s.reference_roads.broken_per_km, s.reference_roads.km) == (0.75, 0.0, 1.5)
    assert s.estimates["apls"].value == pytest.approx(-0.25 / 3)
    assert s.estimates["broken"].value == 2 / 1.5


def test_without_a_judge_there_are_no_graphs(labelled, model):
    [s] = compare(model(), model(), find_tiles(labelled), (1,)).settings
    assert (s.candidate_roads.apls, s.candidate_roads.broken_per_km) == (None, None)


def test_evidence_is_shown_every_tile_with_the_first_number_of_views(labelled, model):
    class Seen(list):
        def add(self, each, image, label, pair):
            self.append((each.id, image.shape, label is not None, [threshold for _, threshold in pair]))

    (labelled / "c_mask.png").unlink()
    seen = Seen()
    compare(model(0.9), model(0.5), find_tiles(labelled), evidence=seen)
    assert [row[0] for row in seen] == ["a", "b", "c"]
    assert seen[2] == ("c", (16, SIDE, 3), False, [0.9, 0.5])


def test_json_of_a_comparison_is_plain_and_carries_no_tiles(labelled, model):
    [s] = json.loads(json.dumps(compare(model(0.9), model(0.5), find_tiles(labelled), (1,)).to_json()))["settings"]
    assert s["estimates"]["iou"] == {"value": pytest.approx(0.1), "low": 0.0, "high": 0.5, "tiles": 3}
    assert s["roads"]["candidate"]["recall"] == 72 / 80
    assert "each" not in s


def test_json_has_plain_values_with_the_drop():
    values = json.loads(json.dumps(found_with(0.875, 0.5, 0.75).to_json()))
    assert (values["tiles"], values["labelled"], values["label_road"]) == (3, 3, 100)
    [s] = values["settings"]
    assert (s["views"], s["agreement"], s["worst_tile"]) == (8, 0.875, "a")
    assert (s["candidate"]["pooled"], s["drop"]["pooled"]) == (0.5, 0.25)
