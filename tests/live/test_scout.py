"""A scout in live video: what the ladder learns of frames whose tiles are partly skipped, here and in a process."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from dlink.live import Live
from dlink.live.engine import Computed, share_looked_at
from dlink.live.ladder import Ladder
from dlink.live.local import Local
from dlink.live.opening import opener
from dlink.live.process import Process
from dlink.runtime import BadInput, BadModel, Spec, open_model
from dlink.runtime.files import file_sha256
from dlink.runtime.scout_limit import ScoutLimit
from tests.support.models import write_pointwise

SIDE = 64
SPEC = Spec(tile=SIDE)


@pytest.fixture
def files(tmp_path):
    large = write_pointwise(tmp_path / "roads.onnx", SPEC)
    limit = ScoutLimit(
        level=100,
        missed=0.01,
        confidence=0.95,
        tiles=300,
        threshold=0.5,
        large_sha256=file_sha256(large),
        views=8,
        halo=0,
    )
    return large, write_pointwise(tmp_path / "scout.onnx", replace(SPEC, scout=limit))


def strip(*values):
    """Tiles side by side."""
    return np.concatenate([np.full((SIDE, SIDE, 3), value, np.uint8) for value in values], axis=1)


def test_a_scout_is_counted_as_a_part_of_a_view_of_every_tile():
    ladder = Ladder((8, 1), deadline=1.0, seconds=0.01, scout=0.002)
    assert [ladder.predicted(i, tiles=10) for i in range(2)] == pytest.approx([10 * 8.2 * 0.01, 10 * 1.2 * 0.01])
    seconds = 10 * 0.004 + 3 * 8 * 0.02  # the machine has become half as fast, and seven of ten tiles are skipped
    ladder.learn(0.0, tiles=10, views=2.4, seconds=seconds, extra=0.0, doubtful=0.0, share=0.3)
    assert [ladder.predicted(i, tiles=10) for i in range(2)] == pytest.approx([seconds, 10 * 0.5 * 0.02])


def test_frames_without_any_road_teach_too_and_one_with_roads_is_believed_at_once():
    ladder = Ladder((8, "adaptive", 1), deadline=1.0, seconds=0.01, scout=0.002)
    for i in range(20):
        ladder.learn(i / 10, tiles=10, views=0.0, seconds=0.02, extra=0.0, doubtful=0.0, share=0.0)
    assert [ladder.predicted(i, tiles=10) for i in range(3)] == pytest.approx([0.02] * 3)
    ladder.learn(2.0, tiles=10, views=8.0, seconds=0.82, extra=0.0, doubtful=0.5, share=1.0)
    assert [ladder.predicted(i, tiles=10) for i in range(3)] == pytest.approx([0.82, 10 * 4.7 * 0.01, 0.12])


def test_an_engine_that_has_skipped_for_long_gets_the_time_for_a_frame_full_of_roads():
    for deadline in (None, 10.0):
        ladder = Ladder((8,), deadline, seconds=0.01, scout=0.002)
        ladder.learn(0.0, tiles=10, views=0.0, seconds=0.02, extra=0.0, doubtful=0.0, share=0.0)
        assert ladder.choose(0.1, 0.0, tiles=10)[1] == pytest.approx(0.82)


def test_without_a_scout_nothing_changes():
    plain, other = Ladder((8, 1), 1.0, 0.01), Ladder((8, 1), 1.0, 0.01, scout=0.0)
    for ladder in (plain, other):
        ladder.learn(0.0, tiles=3, views=4, seconds=0.24, extra=0.005, doubtful=0.0)
    assert plain.predicted(0, 2) == other.predicted(0, 2) == pytest.approx(0.005 + 2 * 8 * 0.02)


@pytest.mark.parametrize(
    ("views", "mean", "doubtful", "share"),
    [(8, 8.0, 0.5, 1.0), (8, 2.0, 0.0, 0.25), (1, 0.0, 0.0, 0.0), ("adaptive", 0.75 + 7 * 0.25, 0.25, 0.75)],
)
def test_the_share_of_tiles_that_did_not_skip_follows_from_the_views(views, mean, doubtful, share):
    assert share_looked_at(views, Computed(np.zeros((1, 1), np.uint8), mean, doubtful, 0.1)) == pytest.approx(share)


@pytest.mark.parametrize("where", ["here", "process"])
def test_skipped_tiles_have_no_views_wherever_the_network_runs(files, where):
    large, scout = files
    options = {"scout": scout, "halo": 0, "threads": 1}
    engine = Local(open_model(large, **options)) if where == "here" else Process(large, options)
    try:
        assert engine.about.seconds > 0 and engine.about.scout > 0
        made = engine.levels(strip(10, 255, 20, 250), 8, 60)
        assert (made.views, share_looked_at(8, made)) == (4.0, 0.5)
        assert [int(made.levels[0, i * SIDE]) > 0 for i in range(4)] == [False, True, False, True]
        made = engine.levels(strip(10, 20), 8, 60)
        assert (made.views, made.levels.any()) == (0.0, False)
        made = engine.levels(strip(10, 128, 255, 20), "adaptive", 60)  # 128 is doubtful
        assert (made.views, made.doubtful) == (pytest.approx(0.5 + 7 * made.doubtful), pytest.approx(0.5))
        assert share_looked_at("adaptive", made) == pytest.approx(0.5)
    finally:
        engine.close()


def test_the_cost_measured_at_opening_is_the_large_networks(files):
    large, scout = files
    with open_model(large, scout=scout) as model:
        before = model.backend.tiles
        local = Local(model, own=False)
        assert local.about.scout > 0
        assert model.backend.tiles - before == 1  # the first run alone went by the scout


def test_live_takes_a_scout_and_delivers_empty_frames(files):
    large, scout = files
    with Live(large, keep="all", process=False, scout=scout, halo=0) as live:
        for values in ((10, 20), (10, 255)):
            live.offer(strip(*values))
        live.end()
        found = list(live)
    assert [(roads.views, bool(roads.mask.any())) for roads in found] == [(0.0, False), (4.0, True)]
    assert live.ladder.look > 0


def test_a_scout_that_was_replaced_is_not_taken(files, tmp_path):
    large, scout = files
    start = opener(large, False, {"scout": scout})
    start().close()
    other = write_pointwise(tmp_path / "other.onnx", replace(SPEC, width=0.5, scout=open_limit(scout)))
    shutil.copy(other, scout)
    with pytest.raises(BadModel, match=r"scout\.onnx: is another model than at the beginning"):
        start()


def open_limit(path):
    with open_model(path) as model:
        return model.spec.scout


def test_a_scout_for_an_open_model_is_refused(files):
    large, scout = files
    with open_model(large) as model, pytest.raises(BadInput, match="scout: options of open_model are for a model file"):
        Live(model, scout=scout)
