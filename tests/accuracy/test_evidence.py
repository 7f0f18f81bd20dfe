import cv2
import numpy as np
import pytest

from dlink.accuracy.agreement import Each
from dlink.accuracy.report.evidence import EXTRAS, HITS, KEPT, MISSES, SIDE, Evidence, difference, show

LABEL = np.array([[1, 1, 0, 0]], bool)
MASK = np.array([[1, 0, 1, 0]], bool)
GREY = np.full((1, 4, 3), 90, np.uint8)


def pair(candidate=MASK, reference=LABEL):
    return [(candidate.astype(np.float32), 0.5), (reference.astype(np.float32), 0.25)]


def added(tiles, labelled=True):
    """Evidence of tiles with these (agreement, IoU with the label)."""
    evidence = Evidence()
    for i, (agreement, iou) in enumerate(tiles):
        each = Each(str(i), agreement, iou, 0.5) if labelled else Each(str(i), agreement)
        evidence.add(each, GREY, LABEL if labelled else None, pair())
    return evidence


def shown(evidence):
    return [tile.each.id for tile in evidence.worst()]


def test_hits_extras_and_misses_have_their_colours():
    assert difference(GREY, LABEL, MASK)[0].tolist() == [list(HITS), list(MISSES), list(EXTRAS), [50, 50, 50]]


def test_the_lowest_iou_comes_first_then_the_least_agreement():
    tiles = [(0.9, 0.6), (0.9, 0.1), (0.2, 0.9), (0.9, 0.2), (0.9, 0.3), (0.9, 0.4), (0.1, 0.8), (0.3, 0.7), (0.4, 0.9)]
    assert shown(added(tiles)) == ["1", "3", "4", "5", "6", "2", "7", "8"]


def test_a_tile_that_is_worst_by_both_is_shown_once():
    assert shown(added([(0.1, 0.1), (0.2, 0.2)])) == ["0", "1"]


def test_masks_that_agree_entirely_are_no_evidence_beside_labels():
    assert shown(added([(1.0, 0.9 - 0.1 * i) for i in range(6)])) == ["5", "4", "3", "2"]


def test_without_labels_the_least_agreement_is_shown():
    assert shown(added([(1.0, None), (0.5, None)], labelled=False)) == ["1", "0"]


def test_no_more_than_a_few_tiles_are_kept():
    evidence = added([(1 - 0.001 * i, 0.001 * i) for i in range(50)])
    assert (len(evidence.by_label), len(evidence.by_masks)) == (KEPT, KEPT)


def test_histograms_are_of_the_labelled_tiles():
    assert added([(1.0, 1.0)] * 3).candidate.pooled().sum() == 3 * 4
    assert added([(1.0, None)] * 3, labelled=False).candidate.pooled().sum() == 0


def test_every_mask_has_its_own_threshold():
    half = np.full((1, 4), 0.4, np.float32)
    pictures = {p.title: p for p in show(Each("a", 0.0), GREY, None, [(half, 0.5), (half, 0.25)]).pictures}
    assert decoded(pictures["candidate"]).max() == 0
    assert decoded(pictures["reference"]).min() == 255


@pytest.mark.parametrize("labelled", [True, False])
def test_a_label_is_shown_where_there_is_one(labelled):
    titles = [p.title for p in show(Each("a", 1.0), GREY, LABEL if labelled else None, pair()).pictures]
    assert ("label" in titles, "candidate against label" in titles) == (labelled, labelled)
    assert titles[0] == "image"
    assert titles[-1] == "candidate against reference"


def test_large_tiles_are_shrunk():
    image, mask = np.zeros((1024, 2048, 3), np.uint8), np.zeros((1024, 2048), bool)
    tile = show(Each("a", 1.0), image, mask, pair(mask, mask))
    assert (tile.height, tile.width) == (1024, 2048)
    assert {decoded(p).shape[:2] for p in tile.pictures} == {(SIDE // 2, SIDE)}


def decoded(picture):
    return cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_UNCHANGED)
