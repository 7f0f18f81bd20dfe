"""The runtime from opening to closing on the real pycuda, down to the driver's calls.

TensorRT is fake_tensorrt.py; kernels are the real ones on the host, with the arguments that pycuda packs. A
script has what tests/support/recorded.py names.
"""

import pytest

from tests.support import host_kernels

ONCE = ["cuMemsetD32Async", "cuMemcpyHtoDAsync_v2", "cuLaunchKernel", "execute", "cuLaunchKernel"]
ONCE += ["cuMemcpyDtoHAsync_v2"] * 2  # roads, and which tiles are at fault
WORK = {
    *ONCE,
    "cuMemcpy2DAsync_v2",
    "cuGraphLaunch",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
}


@pytest.fixture(scope="module")
def compiled():
    """Skips where kernels can't be compiled for the host, which the scripts do for themselves."""
    host_kernels.compiled(host_kernels.SOURCE.read_text())


@pytest.fixture
def runtime(recorder, compiled, tmp_path):
    """A function that runs a script which has a plan, `there`, and that opened as `model`."""

    def run(script, slots=1, kernels=False):
        begin = f"""
            from dlink.runtime import open_model
            from tests.support.fake_machine import SIDE, tiles

            WORK = {sorted(WORK)}
            there = machine(Path({str(tmp_path)!r}), {kernels})
            model = open_model(there.plan, slots={slots})
            """
        found = recorder(begin, script)
        assert "PyCUDA" not in found.stderr
        return found

    return run


def test_a_model_opens_with_all_that_it_needs_and_leaves_no_context_on_the_thread(runtime):
    assert runtime("""
        opened = names()
        say(held(), depth(), opened.count("cuCtxPushCurrent_v2") - opened.count("cuCtxPopCurrent_v2"))
    """) == [{"memory": 7, "pinned": 3, "modules": 1, "streams": 1, "retained": 1}, 0, 0]


def test_a_run_is_plain_then_captured_and_from_then_on_one_graph(runtime):
    first, second, third = runtime(
        """
        for tile in tiles(3):
            calls()
            found = model.mask(tile)
            say([right(there, found, tile), *[name for name in names() if name in WORK]])
    """,
        kernels=True,
    )
    assert first == [True, *ONCE, "cuStreamBeginCapture_v2", *ONCE, "cuStreamEndCapture", "cuStreamSynchronize"]
    assert second == third == [True, "cuGraphLaunch", "cuStreamSynchronize"]


@pytest.mark.parametrize("slots", [1, 2])
def test_work_is_on_a_slots_own_stream(runtime, slots):
    flags, used, depths = runtime(
        """
        made = {call.stream: call.flags for call in calls() if call.name == "cuStreamCreate"}
        model.mask(tiles(8).reshape(2 * SIDE, 4 * SIDE, 3))
        used = {call.stream for call in calls() if call.name in WORK}
        say(list(made.values()), used == set(made), depth())
    """,
        slots,
    )
    assert (len(flags), used, depths) == (slots, True, 0)


def test_the_slots_streams_do_not_wait_for_the_default_stream(runtime):
    assert runtime('say(*[call.flags for call in calls() if call.name == "cuStreamCreate"])', 2) == [1, 1]


def test_what_is_on_the_gpu_stays_there(runtime):
    given, right, stayed = runtime(
        """
        pixels = tiles(2).reshape(2 * SIDE, SIDE, 3)
        wanted = model.mask(pixels)
        for _ in range(2):
            calls()
            result = model.segment_device(Image(pixels))
            work = [call.name for call in calls() if call.name in WORK]
        say(work.count("cuMemcpy2DAsync_v2"), bool((read(result) == wanted).all()), "cuMemcpyHtoDAsync_v2" not in work)
        del result
    """,
        kernels=True,
    )
    assert (given > 0, right, stayed) == (True, True, True)


@pytest.mark.parametrize("thread", ["work()", "in_thread(work)"])
def test_results_are_freed_in_whatever_thread_and_leave_no_context(runtime, thread):
    assert runtime(f"""
        def work():
            for _ in range(20):
                found.pop()
            say(depth())

        before = held()
        found = [model.segment_device(Image(tiles()[0])) for _ in range(20)]
        {thread}
        after = held()
        say(depth(), [after.get(kind) == before.get(kind) for kind in ("memory", "retained")])
    """) == [0, 0, [True, True]]


CLOSED = """
    model.mask(tiles()[0])
    result = model.segment_device(Image(tiles()[0]))
    del result
    {}
    say(held(), depth())
"""


@pytest.mark.parametrize("close", ["model.close()", "in_thread(model.close)"])
def test_a_closed_model_holds_nothing_in_whatever_thread_it_was_closed(runtime, close):
    assert runtime(CLOSED.format(close)) == [{}, 0]


def test_closing_frees_all_and_no_call_is_refused(runtime):
    left, _, refused = runtime(CLOSED.format("model.close()") + "    say([call.name for call in calls() if call.code])")
    assert (left, refused) == ({}, [])


def test_a_run_that_can_not_be_captured_is_plain(runtime):
    assert runtime(
        """
        for tile in tiles(3):
            refuse("cuStreamEndCapture", 901)
            say(right(there, model.mask(tile), tile))
        say(held().get("graphs"), held().get("executables"))
        model.close()
        say(held())
    """,
        kernels=True,
    ) == [True, True, True, None, None, {}]


def test_the_kernels_own_check_finds_no_difference(recorder, compiled):
    """`python -m dlink.bench.kernels --check`, the first that is run on a GPU."""
    assert recorder("""
        import contextlib
        import io
        from dlink.bench.kernels import main

        run_kernels()
        with contextlib.redirect_stdout(io.StringIO()) as said:
            main(["--check"], standalone_mode=False)
        say(said.getvalue().strip(), [kind for kind in held() if kind != "retained"])
    """) == ["spread and gather give HostBackend's numbers", []]
