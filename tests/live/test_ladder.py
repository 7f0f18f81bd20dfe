"""Fewer views where time is short: what is predicted, when it goes down and up."""

import pytest

from dlink.live.ladder import CALM, HOLD, LONGEST_HOLD, REMEMBERED, RUNGS, SOON, Ladder, default_rungs, rungs_of
from dlink.runtime import BadInput

PLAIN = (8, 4, 1)


class Clock:
    """A ladder, and a network whose cost is set: frames come one after another."""

    def __init__(self, ladder, cost, doubtful=1.0, tiles=1):
        self.ladder, self.cost, self.doubtful, self.tiles = ladder, cost, doubtful, tiles
        self.now = 0.0

    def frame(self, age=0.0):
        views, _ = self.ladder.choose(self.now, age, self.tiles)
        number = 1 + 7 * self.doubtful if views == "adaptive" else views
        seconds = self.tiles * number * self.cost
        self.now += max(seconds, 1 / 30)
        self.ladder.learn(self.now, self.tiles, number, seconds, 0.001, self.doubtful)
        if age + seconds > self.ladder.deadline:
            self.ladder.was_late(self.now)
        return views

    def run(self, seconds, age=0.0):
        """The views of all frames of so many seconds."""
        end, views = self.now + seconds, []
        while self.now < end:
            views.append(self.frame(age))
        return views


def test_one_measured_cost_predicts_every_rung():
    ladder = Ladder(PLAIN, deadline=1.0, seconds=0.01)
    assert [ladder.predicted(i, tiles=2) for i in range(3)] == pytest.approx([0.16, 0.08, 0.02])
    ladder.learn(0.0, tiles=3, views=4, seconds=0.24, extra=0.005, doubtful=0.0)
    assert [ladder.predicted(i, tiles=1) for i in range(3)] == pytest.approx([0.165, 0.085, 0.025])


@pytest.mark.parametrize(("cost", "views"), [(0.01, 8), (0.03, 4), (0.1, 1), (9.0, 1)])
def test_the_first_frame_gets_the_most_views_that_fit_the_measured_cost(cost, views):
    assert Ladder(PLAIN, deadline=0.2, seconds=cost).choose(0.0, 0.0, tiles=1)[0] == views


def test_an_overload_takes_views_at_once_and_they_come_back_after_the_hold():
    clock = Clock(Ladder(PLAIN, deadline=0.2, seconds=0.01), cost=0.01)
    assert set(clock.run(5)) == {8}
    clock.cost = 0.15
    overloaded = clock.run(3)
    assert overloaded[0] == 8 and set(overloaded[2:]) == {1}
    clock.cost = 0.01
    after = clock.run(REMEMBERED + HOLD + 1)
    assert after[0] == 1 and after[-1] == 8
    assert set(clock.run(60)) == {8}


def test_a_better_rung_must_fit_with_something_to_spare():
    tight = Clock(Ladder(PLAIN, deadline=0.2, seconds=0.046), cost=0.046)  # four views take 0.184 of 0.2 s
    assert set(tight.run(20)) == {1}
    loose = Clock(Ladder(PLAIN, deadline=0.2, seconds=0.046), cost=0.04)
    assert loose.run(20)[-1] == 4


def test_an_old_frame_gets_fewer_views():
    ladder = Ladder(PLAIN, deadline=0.2, seconds=0.02)
    assert ladder.choose(0.0, 0.0, tiles=1)[0] == 8
    assert ladder.choose(0.1, 0.15, tiles=1)[0] == 1


def test_a_network_that_flaps_is_left_alone_for_longer_and_longer():
    clock = Clock(Ladder(PLAIN, deadline=0.2, seconds=0.02), cost=0.02)

    def flaps():
        """Eight views are always too slow once they are taken, as beside a process that reacts to the load."""
        clock.cost = 0.04 if clock.ladder.views == 8 else 0.01
        clock.frame()

    while clock.now < 300:
        flaps()
    assert clock.ladder.changes <= 24
    assert clock.ladder.hold == LONGEST_HOLD


def test_calm_ends_a_long_hold():
    clock = Clock(Ladder(PLAIN, deadline=0.2, seconds=0.01), cost=0.01)
    clock.run(1)
    clock.ladder.hold = 16.0
    clock.run(CALM + 17)
    clock.cost = 0.15
    clock.run(1)
    clock.cost = 0.01
    clock.ladder.changed -= 2 * CALM
    assert clock.run(SOON + REMEMBERED)[-1] == 8


def test_adaptive_views_are_taken_where_they_pay():
    few = Clock(Ladder(RUNGS, deadline=0.2, seconds=0.03), cost=0.03, doubtful=0.2)  # 2.4 views a tile
    assert few.run(10)[-1] == "adaptive"
    many = Clock(Ladder(RUNGS, deadline=0.2, seconds=0.03), cost=0.03, doubtful=0.9)
    assert many.run(10)[-1] == 4


def test_without_a_deadline_all_frames_get_the_first_rung():
    ladder = Ladder((4, 1), deadline=None, seconds=100.0)
    assert ladder.choose(0.0, 1000.0, tiles=50)[0] == 4


@pytest.mark.parametrize(
    ("views", "ladder"),
    [(8, RUNGS), (4, (4, 1)), ("adaptive", ("adaptive", 4, 1)), (1, (1,)), ([8, 1], (8, 1)), (None, "default")],
)
def test_the_option_names_the_top_or_the_whole_ladder(views, ladder):
    assert rungs_of(views, "default") == ladder


@pytest.mark.parametrize("views", [3, "eight", True, 1.5, [], [1, 8], [8, 8], [None], [8, 2], 0])
def test_a_ladder_that_cannot_be_is_refused(views):
    with pytest.raises(BadInput, match="views must be"):
        rungs_of(views, "default")


def test_a_network_of_fewer_views_begins_there():
    assert [default_rungs(n) for n in (8, 4, 1)] == [RUNGS, (4, 1), (1,)]
