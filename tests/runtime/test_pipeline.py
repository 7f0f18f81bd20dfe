"""Images in the background: their order, shared batches, busy slots, errors, cancelling and closing."""

import threading
import time
from concurrent.futures import FIRST_COMPLETED, CancelledError, wait

import numpy as np
import pytest

from dlink.runtime import BadInput, Busy, Closed, GpuFailed, HostBackend, Segmenter, Spec
from dlink.runtime.backend import to_form

SIDE = 32


class Slots(HostBackend):
    """A backend of several tiles and slots that says what it was given, and waits where it is told to."""

    def __init__(self, most=4, slots=2):
        super().__init__(None, Spec(tile=SIDE, views=(0,)), max_tiles=most)
        self.slots = slots
        self.log = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def start(self, tiles, views=None, form="probability", threshold=0.5):
        red = np.stack([tile[..., 0] for tile in tiles]) / np.float32(255)
        self.log.append(("start", len(tiles)))
        self.begun.set()
        if red.max() == 1:
            raise GpuFailed("white")

        def result():
            assert self.gate.wait(30)
            self.log.append(("end", len(tiles)))
            return to_form(red, form, threshold)

        return result


def picture(value, height=SIDE, width=SIDE):
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def backend():
    return Slots()


@pytest.fixture
def model(backend):
    with Segmenter(backend, halo=0) as model:
        yield model
        backend.gate.set()


def wait_for(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def fill_both_slots(backend, model):
    """Two images of a full batch each, under way until the gate is opened."""
    backend.gate.clear()
    held = [model.submit(picture(1, SIDE, SIDE * 4)) for _ in range(2)]
    wait_for(lambda: len(backend.log) == 2)
    return held


def test_each_caller_gets_the_roads_of_its_own_image_in_order(model):
    done = []
    values = [10 * i for i in range(25)]
    futures = [model.submit(picture(v, 40, 70)) for v in values]
    for i, future in enumerate(futures):
        future.add_done_callback(lambda _, i=i: done.append(i))
    for value, future in zip(values, futures, strict=True):
        np.testing.assert_array_equal(future.result(), np.full((40, 70), 255 * (value / 255 > 0.5)))
    wait_for(lambda: len(done) == 25)
    assert done == sorted(done)


def test_small_images_of_several_callers_share_a_batch(backend, model):
    held = fill_both_slots(backend, model)
    rest = [model.submit(picture(i)) for i in range(7)]
    backend.gate.set()
    [future.result() for future in (*held, *rest)]
    assert [n for name, n in backend.log if name == "start"] == [4, 4, 4, 3]


def test_images_that_ask_for_other_views_do_not_share_a_batch(backend, model):
    held = fill_both_slots(backend, model)
    futures = [model.submit(picture(2), views) for views in (1, 1, 8, 8, 1)]
    backend.gate.set()
    [future.result() for future in (*held, *futures)]
    assert [n for name, n in backend.log if name == "start"][-3:] == [2, 2, 1]


def test_a_slot_is_filled_while_another_one_is_under_way(backend, model):
    first = model.submit(picture(3))
    first.result()
    backend.log.clear()
    backend.gate.clear()
    second, third, fourth = (started(backend, model, n) for n in (1, 2, 2))  # the last has no slot to go to
    assert not second.done()
    backend.gate.set()
    [future.result() for future in (second, third, fourth)]
    assert [name for name, _ in backend.log].count("end") == 3


def started(backend, model, under_way):
    """An image, submitted while others are under way, once so many have been begun."""
    future = model.submit(picture(3))
    wait_for(lambda: len(backend.log) == under_way)
    return future


def test_an_image_that_fails_fails_alone(backend, model):
    futures = [model.submit(picture(v, SIDE, SIDE * 4)) for v in (10, 255, 20)]
    assert futures[0].result().shape == (SIDE, SIDE * 4)
    with pytest.raises(GpuFailed, match="white"):
        futures[1].result()
    assert not futures[2].result().any()


def test_what_failed_is_not_gone_on_with(backend, model):
    with pytest.raises(GpuFailed):
        model.submit(picture(255, SIDE, SIDE * 40)).result()
    model.submit(picture(0)).result()
    assert [n for name, n in backend.log if name == "start"] == [4, 1]


def test_a_future_that_is_cancelled_before_its_turn_is_left_out(backend, model):
    held = fill_both_slots(backend, model)
    waiting = model.submit(picture(2))
    assert waiting.cancel()
    backend.gate.set()
    [future.result() for future in held]
    assert not held[0].cancel()
    model.submit(picture(3)).result()
    assert [n for name, n in backend.log if name == "start"] == [4, 4, 1]


def test_close_finishes_what_was_submitted(backend):
    model = Segmenter(backend, halo=0)
    futures = [model.submit(picture(i, 50, 50)) for i in range(20)]
    model.close()
    assert all(future.done() for future in futures)
    with pytest.raises(Closed):
        model.submit(picture(1))


def test_close_may_cancel_what_has_not_begun(backend):
    model = Segmenter(backend, halo=0)
    backend.gate.clear()
    futures = [model.submit(picture(1, SIDE, SIDE * 4)) for _ in range(9)]
    wait_for(lambda: len(backend.log) == 2)
    closer = threading.Thread(target=lambda: model.close(cancel=True))
    closer.start()
    wait_for(lambda: futures[-1].cancelled())
    backend.gate.set()
    closer.join(30)
    assert not closer.is_alive()
    for future in futures[:2]:
        assert future.result().shape == (SIDE, SIDE * 4)
    for future in futures[2:]:
        with pytest.raises(CancelledError):
            future.result()


def test_no_tile_of_an_image_is_begun_after_it_is_cancelled(backend, model):
    backend.gate.clear()
    long = model.submit(picture(1, SIDE, SIDE * 40))
    wait_for(lambda: len(backend.log) == 2)
    assert long.running() and long.cancel() and not long.running()
    last = model.submit(picture(3))
    backend.gate.set()
    last.result()
    assert [n for name, n in backend.log if name == "start"] == [4, 4, 1]


def test_who_waits_for_several_images_hears_at_once_of_one_cancelled_while_under_way(backend, model):
    held = fill_both_slots(backend, model)
    assert held[0].cancel() and held[0].cancel()
    assert list(wait(held, timeout=10, return_when=FIRST_COMPLETED).done) == held[:1]


def test_an_image_of_higher_priority_goes_between_the_tiles_of_another(backend, model):
    backend.gate.clear()
    order = []
    long = model.submit(picture(1, SIDE, SIDE * 40))
    wait_for(lambda: len(backend.log) == 2)
    for name, priority in (("low", -1), ("high", 5), ("middle", 1)):
        model.submit(picture(2), priority=priority).add_done_callback(lambda _, name=name: order.append(name))
    long.add_done_callback(lambda _: order.append("long"))
    backend.gate.set()
    wait_for(lambda: len(order) == 4)
    assert order == ["high", "middle", "long", "low"]


def test_images_of_other_priorities_do_not_share_a_batch(backend, model):
    held = fill_both_slots(backend, model)
    futures = [model.submit(picture(2), priority=p) for p in (0, 0, 1)]
    backend.gate.set()
    [future.result() for future in (*held, *futures)]
    assert [n for name, n in backend.log if name == "start"][-2:] == [1, 2]


def test_an_image_beyond_the_limit_is_refused_until_there_is_room(backend, model):
    held = fill_both_slots(backend, model)
    with pytest.raises(Busy, match="2 images are submitted and not done, and the limit is 2"):
        model.submit(picture(1), limit=2, wait=False)
    assert held[0].cancel()
    third = model.submit(picture(1), limit=2, wait=False)
    backend.gate.set()
    assert third.result().shape == (SIDE, SIDE)


def test_an_image_beyond_the_limit_waits_for_room(backend, model):
    fill_both_slots(backend, model)
    found = []
    thread = threading.Thread(target=lambda: found.append(model.submit(picture(2), limit=2).result()))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    assert len(backend.log) == 2
    backend.gate.set()
    thread.join(30)
    assert found[0].shape == (SIDE, SIDE)


def test_room_for_one_who_waits_is_not_lost_on_another_who_has_a_lower_limit(backend, model):
    held, done, threads = fill_both_slots(backend, model), [], []

    def work(limit):
        done.append((model.submit(picture(2), limit=limit), limit))

    for limit in (1, 2):  # the first one cannot go on when one image of two has left
        threads.append(threading.Thread(target=work, args=(limit,)))
        threads[-1].start()
        wait_for(lambda: model.life.calls[threads[-1].ident])
        time.sleep(0.05)
    assert held[0].cancel()
    threads[1].join(30)
    assert [limit for _, limit in done] == [2]
    backend.gate.set()
    threads[0].join(30)


@pytest.mark.parametrize("cancel", [False, True])
def test_who_waits_for_room_hears_that_the_model_was_closed(backend, cancel):
    model = Segmenter(backend, halo=0)
    fill_both_slots(backend, model)
    found = []

    def work():
        try:
            model.submit(picture(2), limit=2)
        except Closed as e:
            found.append(e)

    waiting, closer = threading.Thread(target=work), threading.Thread(target=model.close, args=(cancel,))
    waiting.start()
    wait_for(lambda: model.life.calls[waiting.ident])
    closer.start()
    waiting.join(30)
    backend.gate.set()
    closer.join(30)
    assert len(found) == 1 and not closer.is_alive()


def test_a_slow_callback_holds_up_no_image(model):
    gate, ran = threading.Event(), []
    slow, then = model.submit(picture(1)), model.submit(picture(2))
    slow.add_done_callback(lambda _: gate.wait(30))
    then.add_done_callback(lambda _: ran.append("then"))
    assert [model.submit(picture(3)).result(timeout=30).shape for _ in range(5)] == [(SIDE, SIDE)] * 5
    assert then.result(timeout=30).shape == (SIDE, SIDE) and ran == []
    gate.set()
    wait_for(lambda: ran)


def test_a_callback_that_fails_is_logged_and_the_next_one_runs(model, caplog):
    ran = []
    future = model.submit(picture(1))
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda _: ran.append(1))
    wait_for(lambda: ran)
    assert "a callback of an image's Future failed" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_callback_that_is_added_after_the_model_was_closed_runs(backend):
    with Segmenter(backend, halo=0) as model:
        future = model.submit(picture(1))
    ran = []
    future.add_done_callback(ran.append)
    assert ran == [future]


def test_an_image_may_change_once_it_was_submitted(backend, model):
    fill_both_slots(backend, model)
    image = picture(200)
    copied, kept = model.submit(image), model.submit(image, copy=False)
    image[:] = 0
    backend.gate.set()
    assert (copied.result() == 255).all() and (kept.result() == 0).all()


def test_an_image_is_given_in_the_form_that_was_asked_for(model):
    level, prob = (model.submit(picture(51), form=form).result() for form in ("level", "probability"))
    assert (level == 51).all() and level.dtype == np.uint8
    assert (prob == np.float32(0.2)).all()
    with pytest.raises(BadInput, match="form must be probability, level, mask, got 'masks'"):
        model.submit(picture(1), form="masks")


@pytest.mark.parametrize("option", [{"priority": 0.5}, {"limit": 0}, {"limit": True}])
def test_an_option_that_cannot_be_used_is_refused(model, option):
    with pytest.raises(BadInput, match=next(iter(option))):
        model.submit(picture(1), **option)


def test_a_bad_image_is_refused_when_it_is_submitted(model):
    with pytest.raises(BadInput, match="repeat grey"):
        model.submit(np.zeros((4, 4), np.uint8))


def test_many_threads_submit_and_each_gets_its_own(model):
    found = {}

    def work(value):
        found[value] = model.submit(picture(value, 33, 65)).result()

    threads = [threading.Thread(target=work, args=(v,)) for v in range(100, 160)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for value, mask in found.items():
        assert (mask == 255 * (value > 127)).all()
