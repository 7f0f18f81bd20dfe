"""An engine that is lost, and cannot be opened again at once: pauses that grow, and no picture tried twice."""

import threading
import time

import numpy as np
import pytest

from dlink.live import supervisor as module
from dlink.live.engine import About, Computed, Lost
from dlink.live.supervisor import Supervisor
from dlink.runtime import Closed, NoEngine, Spec

IMAGE = np.zeros((4, 4, 3), np.uint8)


class Engine:
    """Gives what it is told to: roads, or an error."""

    def __init__(self, error=None):
        self.about = About(Spec(tile=32), 0, 0.5, "test", 0.01)
        self.error, self.lives, self.closed, self.asked, self.patience = error, True, False, 0, None

    def levels(self, image, views, patience):
        self.asked, self.patience = self.asked + 1, patience
        if self.error:
            raise self.error
        return Computed(image[..., 0], 1, 0.0, 0.01)

    def alive(self):
        return self.lives and not self.closed

    def close(self):
        self.closed = True


class Opener:
    """Opens engines one after another; an error in the list is raised instead."""

    def __init__(self, *engines):
        self.engines, self.times = list(engines), []

    def __call__(self):
        self.times.append(time.monotonic())
        engine = self.engines.pop(0) if self.engines else Engine()
        if isinstance(engine, Exception):
            raise engine
        return engine


def wait_for(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_lost_engine_is_replaced_and_its_picture_is_not_tried_again():
    first, second = Engine(Lost("gone")), Engine()
    supervisor = Supervisor(Opener(first, second))
    with pytest.raises(Lost, match="gone"):
        supervisor.levels(IMAGE, 1, 0.01)
    assert supervisor.wait(30) and supervisor.engine is second and first.closed
    assert (supervisor.restarts, supervisor.error, second.asked) == (1, "gone", 0)
    supervisor.levels(IMAGE, 1, 0.01)
    assert supervisor.failures == 0
    supervisor.close()
    assert second.closed


def test_the_first_try_follows_at_once_and_later_ones_after_pauses_that_grow(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.2)
    opener = Opener(Engine(), *[NoEngine("busy")] * 3, Engine())
    supervisor = Supervisor(opener)
    supervisor.engine.lives = False  # it ends while nobody uses it
    wait_for(lambda: len(opener.times) == 5 and supervisor.ready)
    gaps = np.diff(opener.times)
    assert gaps[1] >= 0.2 and gaps[2] >= 0.4 and gaps[3] >= 0.8 and supervisor.error == "busy"
    supervisor.close()


@pytest.mark.parametrize(("predicted", "patience"), [(0.01, 5.0), (2.0, 20.0)])
def test_an_answer_may_take_ten_times_what_was_predicted_and_five_seconds_at_least(predicted, patience):
    supervisor = Supervisor(Opener())
    supervisor.levels(IMAGE, 1, predicted)
    assert supervisor.engine.patience == patience
    supervisor.close()


def test_a_spare_that_cannot_be_opened_is_not_tried_again_at_once():
    opener = Opener(Engine(), NoEngine("no memory"))
    supervisor = Supervisor(opener, standby=True)
    wait_for(lambda: len(opener.times) == 2)
    time.sleep(0.1)
    assert len(opener.times) == 2 and supervisor.ready
    assert supervisor.failures == 0  # the engine in use has not failed
    supervisor.close()


def test_whatever_keeps_an_engine_from_opening_it_is_tried_again():
    first, third = Engine(Lost("gone")), Engine()
    supervisor = Supervisor(Opener(first, ModuleNotFoundError("No module named 'cv3'"), third))
    with pytest.raises(Lost, match="gone"):
        supervisor.levels(IMAGE, 1, 0.01)
    wait_for(lambda: supervisor.engine is third)
    assert supervisor.error == "ModuleNotFoundError: No module named 'cv3'"
    supervisor.close()


def test_closing_ends_a_pause_and_frees_an_engine_that_is_being_opened():
    gate, late = threading.Event(), Engine()

    def start():
        if not made:
            made.append(Engine())
            return made[0]
        assert gate.wait(30)
        return late

    made = []
    supervisor = Supervisor(start)
    made[0].lives = False
    wait_for(lambda: not supervisor.ready)
    with pytest.raises(Lost, match="being opened again"):
        supervisor.levels(IMAGE, 1, 0.01)
    closer = threading.Thread(target=supervisor.close)
    closer.start()
    wait_for(lambda: supervisor.closed)
    gate.set()
    closer.join(30)
    assert not closer.is_alive() and late.closed
    with pytest.raises(Closed):
        supervisor.levels(IMAGE, 1, 0.01)


def test_an_engine_that_cannot_be_opened_at_first_is_the_callers_error():
    with pytest.raises(NoEngine, match="no GPU"):
        Supervisor(Opener(NoEngine("no GPU")))
