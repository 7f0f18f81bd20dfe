"""What the real pycuda does with what the runtime asks of it, down to the driver's calls.

fake_pycuda.py is what we believe of it; `either` runs a script on both. A script has what recorded.py
names.
"""

import ctypes
import re

import numpy as np
import pytest

from tests.support.host_kernels import GATHER, NUMBERS, SPREAD, SPREAD_BANDS, kinds_of
from tests.support.recording import ROOT, run_here

PTX = ROOT / "trt_runtime" / "kernels" / "kernels.ptx"
FAR = 2**64 - 256  # an address that needs all of its bits


@pytest.fixture(params=["pycuda", "fake"])
def either(request):
    return request.getfixturevalue("recorder") if request.param == "pycuda" else run_here


# what a kernel is given


def laid_out(kinds, values):
    """Arguments as C lays them out, in hexadecimal; no padding behind the last one."""
    fields = [(f"a{i}", kind) for i, kind in enumerate(kinds)]
    kind = type("Arguments", (ctypes.Structure,), {"_fields_": fields})
    last = getattr(kind, fields[-1][0])
    return bytes(kind(*values))[: last.offset + last.size].hex()


def declared(kernel):
    """The types of a kernel's arguments in its PTX."""
    [head] = re.findall(rf"\.entry {kernel}\((.*?)\)", PTX.read_text(), re.DOTALL)
    return re.findall(r"\.param \.(?:align 4 \.)?(\w+)", head)


@pytest.mark.parametrize(
    "kernel", [f"{k}_{t}" for k in ("spread", "spread_bands", "gather") for t in ("float32", "float16")]
)
def test_the_arguments_that_are_packed_are_those_that_the_ptx_declares(kernel):
    names = {ctypes.c_void_p: "u64", ctypes.c_int: "u32", ctypes.c_uint: "u32", ctypes.c_float: "f32"}
    names[NUMBERS] = "b8"
    assert declared(kernel) == [names[kind] for kind in kinds_of(kernel)]


SPEC_OF_THREE = 'Spec(tile=96, channels="BGR", scale=(0.5, 0.25, 0.125), shift=(-1, -2, -3))'
SPEC_OF_FOUR = SPEC_OF_THREE.replace("0.125)", "0.125, 2)").replace(
    "-3)", '-3, -4), bands=("red", "green", "blue", "nir")'
)


@pytest.fixture
def launched(recorder, tmp_path):
    """A function that runs one line with the runtime's kernels and returns its launch."""

    def launch(line, ends="float32", spec=SPEC_OF_THREE):
        [call] = recorder(f"""
            from dlink.runtime import Spec
            from dlink.trt_runtime.kernels.launch import Kernels

            spec = {spec}
            ends = np.dtype({ends!r})
            gpu = primary()
            gpu.push()
            kernels = Kernels(Path({str(PTX)!r}).read_bytes(), spec, ends, ends)
            stream = cuda.Stream()
            calls()
            {line}
            [call] = [call for call in calls() if call.name == "cuLaunchKernel"]
            say({{**call.args, "own": stream.handle}})
            del kernels, stream
            cuda.Context.pop()
            """)
        return call

    return launch


@pytest.mark.parametrize("ends", ["float32", "float16"])
def test_each_argument_of_spread_is_what_was_given_in_its_place(launched, ends):
    call = launched(f"kernels.spread(stream, 2, {FAR}, {FAR + 8}, (0, 3, 7))", ends)
    given = FAR, FAR + 8, 96, 0b10001001, 1, 0.5, 0.25, 0.125, -1, -2, -3
    assert call["arguments"] == laid_out(SPREAD, given)
    assert call["name"] == f"spread_{ends}"


@pytest.mark.parametrize("ends", ["float32", "float16"])
def test_each_argument_of_spread_for_other_bands_is_what_was_given_in_its_place(launched, ends):
    call = launched(f"kernels.spread(stream, 2, {FAR}, {FAR + 8}, (0, 3, 7))", ends, SPEC_OF_FOUR)
    numbers = (0.5, 0.25, 0.125, 2, 0, 0, 0, 0, -1, -2, -3, -4, 0, 0, 0, 0)
    assert call["arguments"] == laid_out(SPREAD_BANDS, (FAR, FAR + 8, 96, 0b10001001, 1, 4, numbers))
    assert call["name"] == f"spread_bands_{ends}"


@pytest.mark.parametrize("ends", ["float32", "float16"])
def test_each_argument_of_gather_is_what_was_given_in_its_place(launched, ends):
    outs = FAR + 16, 0, FAR + 32
    call = launched(f"kernels.gather(stream, 2, {FAR}, {FAR + 8}, (1, 2), (True, 8, 0.3), {outs}, {FAR + 48})", ends)
    given = FAR, FAR + 8, 96, 0b110, 1, 8, 0.3, *outs, FAR + 48
    assert call["arguments"] == laid_out(GATHER, given)
    assert call["name"] == f"gather_{ends}"


def test_a_kernel_is_launched_with_its_grid_its_block_and_its_stream(launched):
    call = launched("kernels.spread(stream, 5, 256, 512, (0,))")
    assert (call["grid"], call["block"], call["shared"], call["stream"]) == ("3,3,5", "32,8,1", 0, call["own"])


def test_the_ptx_ends_where_its_file_does(recorder):
    """The driver reads text to its first NUL, which Python puts behind `bytes`."""
    [length] = recorder(f"""
        gpu = primary()
        gpu.push()
        cuda.module_from_buffer(Path({str(PTX)!r}).read_bytes())
        cuda.Context.pop()
        say(*[call.length for call in calls() if call.name == "cuModuleLoadDataEx"])
    """)
    assert length == PTX.stat().st_size


def test_what_is_no_ptx_and_a_kernel_that_is_not_there_are_errors(recorder):
    assert recorder("""
        gpu = primary()
        gpu.push()
        module = cuda.module_from_buffer(b".version 7.4 .entry roads()")
        for work in (lambda: cuda.module_from_buffer(b"roads"), lambda: module.get_function("houses")):
            try:
                work()
            except cuda.LogicError as e:
                say(str(e).partition(":")[0])
        del module
        cuda.Context.pop()
    """) == ["cuModuleLoadDataEx failed", "cuModuleGetFunction failed"]


# streams and events


@pytest.mark.parametrize(
    ("made", "flags"),
    [("Stream()", 0), ("Stream(1)", 1), ("Stream(flags=1)", 1), ("Event()", 0), ("Event(2)", 2), ("Event(flags=2)", 2)],
)
def test_a_stream_and_an_event_have_the_flags_that_they_were_made_with(recorder, made, flags):
    assert recorder(f"""
        gpu = primary()
        gpu.push()
        made = cuda.{made}
        say(*[call.flags for call in calls() if call.name.endswith("Create")])
        del made
        cuda.Context.pop()
    """) == [flags]


def test_a_stream_has_a_number_and_none_is_the_default_stream(recorder):
    assert recorder("""
        gpu = primary()
        gpu.push()
        stream, event, memory = cuda.Stream(), cuda.Event(), cuda.mem_alloc(64)
        calls()
        cuda.memset_d32_async(memory, 0, 16, stream)
        say([call.stream == stream.handle for call in calls()][0], type(stream.handle).__name__)
        cuda.memset_d32_async(memory, 0, 16)
        event.record()
        say(*[call.stream for call in calls()])
        del stream, event, memory
        cuda.Context.pop()
    """) == [True, "int", 0, 0]


def test_an_event_is_recorded_waited_for_and_timed(either):
    assert either("""
        gpu = primary()
        gpu.push()
        stream, first, last = cuda.Stream(), cuda.Event(), cuda.Event()
        first.record(stream)
        last.record(stream)
        last.synchronize()
        say(type(first.time_till(last)).__name__)
        del stream, first, last
        cuda.Context.pop()
    """) == ["float"]


# contexts: pycuda's stack, and CUDA's below it


def test_a_push_is_taken_back_by_a_pop(recorder):
    assert recorder("""
        gpu = primary()
        gpu.push()
        say(depth())
        cuda.Context.pop()
        say(depth(), names())
        driver.cuDevicePrimaryCtxRelease_v2(0)
    """) == [1, 0, ["cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2"]]


def test_of_pycudas_contexts_one_at_a_time_is_on_cudas_stack(recorder):
    assert recorder("""
        first, second = primary(), primary()
        first.push()
        second.push()
        say(depth())
        cuda.Context.pop()
        say(depth())
        cuda.Context.pop()
        say(depth())
    """) == [1, 1, 0]


def test_a_pop_of_nothing_is_an_error(either):
    assert either("""
        try:
            cuda.Context.pop()
        except cuda.LogicError:
            say("refused")
    """) == ["refused"]


def test_what_is_detached_in_its_own_thread_is_released_and_stays_on_cudas_stack(recorder):
    assert recorder("""
        gpu = primary()
        calls()
        gpu.detach()
        say(names(), held(), depth())
    """) == [["cuCtxPushCurrent_v2", "cuDevicePrimaryCtxRelease_v2"], {}, 1]


def test_what_is_detached_in_another_thread_is_not_released(recorder):
    assert recorder("""
        gpu = primary()
        calls()
        in_thread(gpu.detach)
        say(names(), held())
    """) == [[], {"retained": 1}]


def test_what_is_detached_while_it_is_uppermost_is_released_in_any_thread_and_stays_on_cudas_stack(recorder):
    assert recorder("""
        def work():
            gpu.push()
            gpu.detach()
            say(names(), held(), depth())

        gpu = primary()
        calls()
        in_thread(work)
        say(depth())
    """) == [["cuCtxPushCurrent_v2", "cuDevicePrimaryCtxRelease_v2"], {}, 1, 0]


def test_what_was_below_a_context_that_is_detached_is_pushed_above_it(recorder):
    assert recorder("""
        below, gpu = primary(), primary()
        below.push()
        calls()
        gpu.push()
        gpu.detach()
        say(names(), held(), depth(), cuda.Context.get_current() is not None)
        cuda.Context.pop()
    """) == [
        ["cuCtxPopCurrent_v2", "cuCtxPushCurrent_v2", "cuDevicePrimaryCtxRelease_v2", "cuCtxPushCurrent_v2"],
        {"retained": 1}, 2, True,
    ]  # fmt: skip


def test_a_context_is_detached_once(recorder):
    assert recorder("""
        gpu = primary()
        gpu.detach()
        try:
            gpu.detach()
        except cuda.LogicError:
            say("refused")
    """) == ["refused"]


def test_a_context_that_is_dropped_is_never_released(recorder):
    """Its destructor calls cuCtxDetach, which is not for a primary context."""
    found = recorder("""
        gpu = primary()
        calls()
        del gpu
        say(names(), held(), depth())
    """)
    assert found == [["cuCtxPushCurrent_v2", "cuCtxDetach"], {"retained": 1}, 1]
    assert "cuCtxDetach failed" in found.stderr


def test_a_process_that_ends_with_a_context_pushed_is_aborted(recorder):
    found = recorder("gpu = primary(); gpu.push()", code=-6)
    assert "The context stack was not empty upon module cleanup" in found.stderr


# memory


MOVES = """
    gpu = primary()
    gpu.push()
    stream = cuda.Stream()
    here, back = (cuda.pagelocked_empty((4, 8), np.uint8) for _ in range(2))
    there, other = int(cuda_memory := cuda.mem_alloc(64)), int(cuda_other := cuda.mem_alloc(64))
    here[...] = np.arange(32).reshape(4, 8)
    cuda.memcpy_htod_async(there, here, stream)
    {}
    cuda.memcpy_dtoh_async(back, other, stream)
    stream.synchronize()
    say(back.tolist())
    cuda_memory.free()
    cuda_other.free()
    for array in (here, back):
        array.base.free()
    del stream
    cuda.Context.pop()
"""


def test_bytes_go_to_the_gpu_about_it_and_back(either):
    moved = "cuda.memcpy_dtod_async(other, there, 32, stream)"
    assert either(MOVES.format(moved)) == [np.arange(32).reshape(4, 8).tolist()]


def test_memory_is_filled_with_words(either):
    filled = "cuda.memset_d32_async(other, 0x01020304, 8, stream)"
    assert either(MOVES.format(filled)) == [[[4, 3, 2, 1] * 2] * 4]


def test_a_rectangle_is_copied_from_line_to_line(either):
    copied = """
    cuda.memset_d32_async(other, 0, 8, stream)
    made = cuda.Memcpy2D()
    made.set_src_device(there + 8 + 2)
    made.src_pitch = 8
    made.set_dst_device(other + 1)
    made.dst_pitch = 16
    made.width_in_bytes, made.height = 3, 2
    made(stream)
    """
    wanted = np.zeros(32, np.uint8)
    wanted[1:4], wanted[17:20] = [10, 11, 12], [18, 19, 20]
    assert either(MOVES.format(copied)) == [wanted.reshape(4, 8).tolist()]


def test_a_rectangle_with_a_number_for_a_stream_is_copied_at_once(recorder):
    """pycuda takes it for `aligned`."""
    assert recorder("""
        gpu = primary()
        gpu.push()
        stream = cuda.Stream()
        calls()
        try:
            cuda.Memcpy2D()(stream.handle)
        except cuda.LogicError:
            say(names())
        del stream
        cuda.Context.pop()
    """) == [["cuMemcpy2D_v2"]]


def test_mapped_memory_of_the_host_has_an_address_on_the_gpu(either):
    assert either("""
        gpu = primary()
        gpu.push()
        array = cuda.pagelocked_empty((2, 3), np.uint8, mem_flags=cuda.host_alloc_flags.DEVICEMAP)
        say(array.shape, array.flags.c_contiguous, array.base.get_device_pointer() == array.ctypes.data)
        array.base.free()
        cuda.Context.pop()
    """) == [[2, 3], True, True]


def test_how_much_is_free_and_whether_memory_is_shared_are_numbers(either):
    assert either("""
        gpu = primary()
        gpu.push()
        say(cuda.mem_get_info(), cuda.Device(0).get_attribute(cuda.device_attribute.INTEGRATED))
        cuda.Context.pop()
    """) == [[1 << 33, 1 << 34], 0]


def test_memory_without_a_context_is_an_error(either):
    assert either("""
        try:
            cuda.mem_alloc(64)
        except cuda.LogicError:
            say("refused")
    """) == ["refused"]


WRONG = {
    "cuda.mem_alloc(np.int64(64))": "TypeError",
    "cuda.mem_alloc(0)": "LogicError",
    "cuda.mem_alloc(-1)": "OverflowError",
    "cuda.memcpy_htod_async(np.int64(address), array, stream)": "TypeError",
    "cuda.memcpy_htod_async(address, array, stream.handle)": "TypeError",
    "cuda.memcpy_htod_async(address, array[:, :2], stream)": "ValueError",
    "cuda.memset_d32_async(address, -1, 1, stream)": "OverflowError",
    "cuda.Device(0).get_attribute(18)": "TypeError",
}


def test_what_is_given_has_its_one_type(recorder):
    found = recorder(f"""
        gpu = primary()
        gpu.push()
        stream, memory = cuda.Stream(), cuda.mem_alloc(64)
        address, array = int(memory), cuda.pagelocked_empty((4, 4), np.uint8)
        for wrong in {list(WRONG)}:
            try:
                eval(wrong)
            except (TypeError, OverflowError, ValueError, cuda.LogicError) as e:
                say([kind.__name__ for kind in type(e).__mro__])
        del stream, memory, array
        cuda.Context.pop()
    """)
    for kinds, (wrong, error) in zip(found, WRONG.items(), strict=True):
        assert error in kinds, wrong


def test_memory_is_freed_once(recorder):
    assert recorder("""
        gpu = primary()
        gpu.push()
        for memory in (cuda.mem_alloc(64), cuda.pagelocked_empty(64, np.uint8).base):
            memory.free()
            try:
                memory.free()
            except cuda.LogicError as e:
                say(str(e))
        say(held())
        cuda.Context.pop()
    """) == [
        "device_allocation::free failed: invalid resource handle",
        "pagelocked_host_allocation::free failed: invalid resource handle",
        {"retained": 1},
    ]


def test_where_there_is_no_memory_garbage_is_collected_and_it_is_asked_for_again(recorder):
    assert recorder("""
        import gc
        gpu = primary()
        gpu.push()
        calls()
        gc.callbacks.append(lambda phase, info: say(phase))
        refuse("cuMemAlloc_v2", 2)
        memory = cuda.mem_alloc(64)
        gc.callbacks.clear()
        say(names())
        del memory
        cuda.Context.pop()
    """) == ["start", "stop", ["cuMemAlloc_v2", "cuMemAlloc_v2"]]


FREED = """
    def work():
        {}

    gpu = primary()
    gpu.push()
    memory = cuda.mem_alloc(64)
    cuda.Context.pop()
    calls()
    {}
    say(names(), held())
"""
LEAKED = "device_allocation in out-of-thread context could not be cleaned up"


def test_memory_is_freed_in_any_thread_that_has_its_context(recorder):
    found = recorder(FREED.format("gpu.push(); memory.free(); cuda.Context.pop()", "in_thread(work)"))
    assert found == [["cuCtxPushCurrent_v2", "cuMemFree_v2", "cuCtxPopCurrent_v2"], {"retained": 1}]


def test_memory_is_freed_in_the_thread_that_retained_its_context_and_leaked_in_others(recorder):
    found = recorder(FREED.format("memory.free()", "work()"))
    assert found == [["cuCtxPushCurrent_v2", "cuMemFree_v2", "cuCtxPopCurrent_v2"], {"retained": 1}]
    found = recorder(FREED.format("memory.free()", "in_thread(work)"))
    assert found == [[], {"memory": 1, "retained": 1}]
    assert LEAKED in found.stderr


def test_the_same_context_retained_once_more_is_another_one_to_memory(recorder):
    found = recorder(
        FREED.format("again.push(); memory.free(); cuda.Context.pop()", "again = primary(); in_thread(work)")
    )
    assert found[1] == {"memory": 1, "retained": 2}
    assert LEAKED in found.stderr


def test_memory_of_a_context_that_was_detached_is_leaked_without_a_word(recorder):
    found = recorder(FREED.format("memory.free()", "gpu.detach(); work()"))
    assert found == [["cuCtxPushCurrent_v2", "cuDevicePrimaryCtxRelease_v2"], {"memory": 1}]
    assert found.stderr == ""


def test_streams_events_and_kernels_are_left_where_another_thread_drops_them_without_their_context(recorder):
    found = recorder(f"""
        gpu = primary()
        gpu.push()
        left = [cuda.Stream(), cuda.Event(), cuda.module_from_buffer(Path({str(PTX)!r}).read_bytes())]
        cuda.Context.pop()
        calls()
        in_thread(left.clear)
        say(names(), held())
    """)
    assert found == [[], {"modules": 1, "streams": 1, "events": 1, "retained": 1}]


def test_a_context_that_pycuda_has_not_pushed_itself_is_none_to_it_and_memory_is_lost(recorder):
    assert recorder("""
        gpu = primary()
        driver.cuCtxPushCurrent_v2(ctypes.c_size_t(gpu.handle))
        try:
            cuda.mem_alloc(64)
        except cuda.LogicError as e:
            say(str(e), held())
    """) == [
        "explicit_context_dependent failed: invalid device context - no currently active context?",
        {"memory": 1, "retained": 1},
    ]


# captures


def test_memory_that_is_freed_by_a_thread_that_captures_is_leaked_and_ends_the_capture(recorder):
    """cuda.h, cuThreadExchangeStreamCaptureMode: such a thread "is prohibited from potentially unsafe API calls"."""
    found = recorder("""
        gpu = primary()
        gpu.push()
        stream, memory = cuda.Stream(1), cuda.mem_alloc(64)
        begin_capture(stream)
        memory.free()
        say(end_capture(stream))
        try:
            memory.free()
        except cuda.LogicError:
            say("freed before", held())
        del stream
        cuda.Context.pop()
    """)
    assert found == [901, "freed before", {"memory": 1, "streams": 1, "retained": 1}]
    assert "cuMemFree failed: operation not permitted when stream is capturing" in found.stderr


def test_memory_that_is_allocated_by_a_thread_that_captures_is_refused(recorder):
    assert recorder("""
        gpu = primary()
        gpu.push()
        stream = cuda.Stream(1)
        begin_capture(stream)
        for work in (lambda: cuda.mem_alloc(64), lambda: cuda.pagelocked_empty(64, np.uint8)):
            try:
                work()
            except cuda.LogicError as e:
                say(str(e))
        say(end_capture(stream))
        del stream
        cuda.Context.pop()
    """) == [
        "cuMemAlloc failed: operation not permitted when stream is capturing",
        "cuMemHostAlloc failed: operation not permitted when stream is capturing",
        901,
    ]


@pytest.mark.parametrize(("flags", "said"), [(0, ["refused", 901]), (1, [0])])
def test_the_default_stream_is_refused_while_a_stream_that_waits_for_it_is_captured(recorder, flags, said):
    """cuda.h, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT; such a stream is one without CU_STREAM_NON_BLOCKING."""
    assert (
        recorder(f"""
        gpu = primary()
        gpu.push()
        stream, memory = cuda.Stream({flags}), cuda.mem_alloc(64)
        begin_capture(stream)
        try:
            cuda.memset_d32_async(memory, 0, 16)
        except cuda.LogicError:
            say("refused")
        say(end_capture(stream))
        del stream, memory
        cuda.Context.pop()
    """)
        == said
    )


# errors


def test_errors_are_of_one_kind_which_is_none_of_pythons(either):
    assert either("""
        kinds = cuda.MemoryError, cuda.LogicError
        say(cuda.Error.__bases__ == (Exception,), [kind.__bases__ == (cuda.Error,) for kind in kinds])
    """) == [True, [True, True]]


CODES = {2: "MemoryError", 100: "RuntimeError", 700: "LogicError", 719: "LaunchError", 900: "LogicError", 999: "Error"}


def test_each_code_of_the_drivers_has_its_error(recorder):
    assert recorder(f"""
        gpu = primary()
        gpu.push()
        for code in {list(CODES)}:
            refuse("cuMemGetInfo_v2", code)
            try:
                cuda.mem_get_info()
            except cuda.Error as e:
                say(type(e).__name__)
        cuda.Context.pop()
    """) == list(CODES.values())
