"""Images and roads that stay on the GPU, on a CUDA that is not there: whose arrays, which streams, whose memory."""

import ctypes
import gc
import importlib
import threading
import weakref

import numpy as np
import pytest

from dlink.runtime import BadInput, Closed, DlinkError, EngineFailed, GpuFailed, open_model
from dlink.trt_runtime import dlpack
from tests.support import fake_pycuda
from tests.support.fake_machine import SIDE, of_bands
from tests.support.fake_pycuda import HELD, LOG, STATE, Queue
from tests.trt_runtime.test_tensorrt_backend import BLACK, NAN_OF_BLACK, WHITE, infinite


class OnGpu:
    """Someone's array on the GPU, lines apart by `pitch` bytes."""

    def __init__(self, array, pitch=None, stream=None):
        array = np.ascontiguousarray(array)
        line = array[0].nbytes
        self.memory = np.full((len(array), pitch or line), 0xEE, np.uint8)
        self.memory[:, :line] = array.reshape(len(array), -1).view(np.uint8)
        fake_pycuda.MEMORY[self.memory.ctypes.data] = self.memory.reshape(-1)
        inner = array.strides[1:]
        self.dtype, self.shape = array.dtype, array.shape
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self.memory.ctypes.data, False),
            "version": 3,
            "strides": (pitch, *inner) if pitch else None,
            "stream": stream,
        }

    @property
    def values(self):
        line = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        return np.ascontiguousarray(self.memory[:, :line]).view(self.dtype).reshape(self.shape)

    def free(self):
        del fake_pycuda.MEMORY[self.memory.ctypes.data]


class Packed:
    """The same through DLPack alone."""

    def __init__(self, array, device=2):
        self.array, self.device = array, device
        fake_pycuda.MEMORY[array.ctypes.data] = array.reshape(-1).view(np.uint8)

    def __dlpack_device__(self):
        return self.device, 0

    def __dlpack__(self, stream=None):  # of before 1.0
        assert stream == 1
        return self.array.__dlpack__()


def read(array):
    """What a consumer of the result sees."""
    said = array.__cuda_array_interface__
    assert said["version"] == 3
    assert said["strides"] is None
    size = int(np.prod(said["shape"])) * np.dtype(said["typestr"]).itemsize
    return fake_pycuda.find(said["data"][0], size).view(said["typestr"]).reshape(said["shape"]).copy()


def picture(height=SIDE, width=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def model(gpu):
    with open_model(gpu.plan) as model:
        yield model


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (150, 201), (SIDE, 300)])
@pytest.mark.parametrize("pitch", [None, 1024])
def test_an_image_on_the_gpu_gives_what_it_gives_on_the_host(model, shape, pitch):
    image = picture(*shape)
    for _ in range(3):
        given = OnGpu(image, pitch)
        np.testing.assert_array_equal(read(model.segment_device(given)), model.mask(image))
        found = read(model.segment_device(given, 4, "probability"))
        np.testing.assert_allclose(found, model.probabilities(image, 4), atol=1e-7)
        np.testing.assert_array_equal(read(model.segment_device(given, 1, "level")), model.levels(image, 1))
        assert (given.values == image).all()


def test_an_image_of_other_bands_on_the_gpu_gives_what_it_gives_on_the_host(machine):
    image = np.random.default_rng(0).integers(0, 256, (150, 201, 4), np.uint8)
    with open_model(machine(spec=of_bands("red", "green", "blue", "nir")).plan) as model:
        for _ in range(3):
            np.testing.assert_array_equal(read(model.segment_device(OnGpu(image))), model.mask(image))
        wanted = r"an image must be uint8 \(H, W, 4\) of red, green, blue, nir, got uint8 \(64, 64, 3\)"
        with pytest.raises(BadInput, match=wanted):
            model.segment_device(OnGpu(picture()))


def test_nothing_goes_through_the_host(model):
    given = OnGpu(picture())
    model.segment_device(given)
    LOG.clear()
    model.segment_device(given)
    assert "upload" not in LOG
    assert LOG.count("download") == 1  # whether tiles are at fault


def test_dlpack_is_taken_as_well(model):
    image = picture(80, 90)
    np.testing.assert_array_equal(read(model.segment_device(Packed(image))), model.mask(image))
    wide = picture(80, 200)[:, :90]
    fake_pycuda.MEMORY[wide.base.ctypes.data] = wide.base.reshape(-1)

    class View(Packed):
        def __init__(self, array):
            self.array, self.device = array, 2

    np.testing.assert_array_equal(read(model.segment_device(View(wide))), model.mask(np.ascontiguousarray(wide)))


def test_dlpack_may_begin_behind_its_pointer(model):
    image, before = picture(), 128
    memory = np.concatenate([np.zeros(before, np.uint8), image.ravel()])
    fake_pycuda.MEMORY[memory.ctypes.data] = memory
    shape = (ctypes.c_int64 * 3)(*image.shape)
    tensor = dlpack.DLTensor(memory.ctypes.data, 2, 0, 3, 1, 8, 1, shape, None, before)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)

    class Behind(Packed):
        def __init__(self):
            self.device = 2

        def __dlpack__(self, stream=None):
            return new(ctypes.addressof(tensor), b"dltensor", None)

    np.testing.assert_array_equal(read(model.segment_device(Behind())), model.mask(image))


class Numbered(Packed):
    """Of DLPack 1.0: a capsule with a version."""

    def __init__(self, array, device=2, number=0, major=1):
        super().__init__(array, device)
        self.number, self.major, self.streams = number, major, []

    def __dlpack_device__(self):
        return self.device, self.number

    def __dlpack__(self, *, stream=None, max_version=None):
        self.streams.append(stream)
        assert max_version == (1, 0)
        capsule = self.array.__dlpack__(max_version=max_version)
        dlpack.Versioned.from_address(dlpack.pointer_of(capsule, dlpack.VERSIONED)).major = self.major
        return capsule


def test_dlpack_with_a_version_is_taken_and_one_of_another_major_version_refused(model):
    image, theirs = picture(80, 90), stream()
    given = Numbered(image)
    np.testing.assert_array_equal(read(model.segment_device(given)), model.mask(image))
    model.segment_device(given, stream=theirs)
    assert given.streams == [1, theirs]  # in the caller's order where there is one
    HELD["stream"].pop(theirs)
    with pytest.raises(BadInput, match=r"an image: its DLPack capsule is of version 2.0, not 1"):
        model.segment_device(Numbered(image, major=2))


def test_what_a_producer_refuses_is_said(model):
    class Refusing(Packed):
        def __dlpack__(self, stream=None):
            raise BufferError("per-thread default stream is not supported.")

    with pytest.raises(BadInput, match=r"^an image: per-thread default stream is not supported.$"):
        model.segment_device(Refusing(picture()), stream=2)


def test_an_image_on_another_gpu_is_refused(model):
    with pytest.raises(BadInput, match="an image is on GPU 1, and the model on GPU 0; copy it there"):
        model.segment_device(Numbered(picture(), number=1))


def test_what_a_capsule_holds_lives_until_it_was_read(model):
    """A producer may make its array for the capsule alone."""
    image, theirs, gone = picture(), stream(), []

    class Lasting(np.ndarray):
        """A weak reference can be made to it."""

    class Passing(Packed):
        def __dlpack__(self, stream=None):
            copy = self.array.copy().view(Lasting)
            address = copy.ctypes.data
            borrowed = (ctypes.c_uint8 * copy.nbytes).from_address(address)
            fake_pycuda.MEMORY[address] = np.frombuffer(borrowed, np.uint8)
            weakref.finalize(copy, gone.append, address)
            return copy.__dlpack__()

    result = model.segment_device(Passing(image), stream=theirs)
    gc.collect()
    assert not gone
    HELD["stream"][theirs].run()
    np.testing.assert_array_equal(read(result), model.mask(image))
    model.mask(image)  # through both slots
    assert gone
    HELD["stream"].pop(theirs)
    fake_pycuda.MEMORY.pop(gone[0])


@pytest.mark.parametrize("versions", [None, (1, 0)])
def test_the_result_is_given_by_dlpack_and_outlives_us(model, versions):
    image = picture(100, 120)
    result = model.segment_device(OnGpu(image))
    assert result.__dlpack_device__() == (2, 0)
    capsule = result.__dlpack__(stream=1, max_version=versions)
    assert ("versioned" in repr(capsule)) is bool(versions)
    tensor, fixed = dlpack.tensor_of(capsule)
    assert (tensor.device_type, tensor.device_id, tensor.shape[: tensor.ndim], fixed) == (2, 0, [100, 120], False)
    address, held = result.pointer, weakref.ref(result)
    del result
    gc.collect()
    assert held()
    assert tensor.data + tensor.offset == address
    np.testing.assert_array_equal(fake_pycuda.find(address, 12000).reshape(100, 120), model.mask(image))
    with pytest.raises(ZeroDivisionError):  # whoever drops one amid an exception does no harm
        (held().__dlpack__(), 1 / 0)
    del capsule
    gc.collect()
    assert held() is None


def test_a_taker_by_dlpack_waits_for_the_work_on_the_result(model):
    image, theirs, takers = picture(), stream(), stream()
    result = model.segment_device(OnGpu(image), stream=theirs)
    LOG.clear()
    result.__dlpack__(stream=-1)  # asks for no order
    assert LOG == []
    result.__dlpack__(stream=takers)
    seen = []
    HELD["stream"][takers].put(lambda: seen.append(read(result)))
    HELD["stream"][takers].run()
    np.testing.assert_array_equal(seen[0], model.mask(image))
    assert fake_pycuda.depth() == 0
    [HELD["stream"].pop(each) for each in (theirs, takers)]


@pytest.mark.parametrize("asked", [{"copy": True}, {"dl_device": (1, 0)}, {"dl_device": (2, 1)}], ids=str)
def test_what_dlpack_would_have_to_copy_is_refused(model, asked):
    with pytest.raises(BufferError, match="given in place, without a copy"):
        model.segment_device(OnGpu(picture())).__dlpack__(**asked)


def device_arrays():
    return importlib.import_module("dlink.trt_runtime.device_arrays")


@pytest.mark.parametrize("pitch", [None, 512])
def test_the_result_may_be_an_array_of_the_callers(model, pitch):
    image, out = picture(100, 120), OnGpu(np.zeros((100, 120), np.uint8), pitch)
    model.segment_device(OnGpu(image), out=out)
    np.testing.assert_array_equal(out.values, model.mask(image))
    assert (out.memory[:, 120:] == 0xEE).all()
    probability = OnGpu(np.zeros((100, 120), np.float32))
    model.segment_device(OnGpu(image), form="probability", out=probability)
    np.testing.assert_allclose(probability.values, model.probabilities(image), atol=1e-7)


def stream():
    handle = next(fake_pycuda.HANDLES)
    HELD["stream"][handle] = Queue()
    return handle


def test_the_callers_stream_is_honoured_at_both_ends(model):
    image, theirs = picture(), stream()
    given = OnGpu(np.zeros_like(image))
    HELD["stream"][theirs].put(lambda: np.copyto(given.memory, image.reshape(SIDE, -1)))  # not yet there
    LOG.clear()
    result = model.segment_device(given, stream=theirs)
    assert "synchronize" not in LOG
    assert result.__cuda_array_interface__["stream"] == theirs
    seen = []
    HELD["stream"][theirs].put(lambda: seen.append(read(result)))
    HELD["stream"][theirs].run()
    np.testing.assert_array_equal(seen[0], model.mask(image))
    del HELD["stream"][theirs]


def test_an_array_that_names_no_stream_is_in_the_order_of_the_default_one(model):
    image = picture()
    given, out = OnGpu(np.zeros_like(image)), OnGpu(np.full((SIDE, SIDE), 7, np.uint8))
    fake_pycuda.LEGACY.put(lambda: np.copyto(given.memory, image.reshape(SIDE, -1)))  # not yet there
    fake_pycuda.LEGACY.put(lambda: out.memory.fill(7))
    model.segment_device(given, out=out)
    np.testing.assert_array_equal(out.values, model.mask(image))


@pytest.mark.parametrize("number", [0, 1])
def test_the_default_stream_is_0_or_1_to_callers_and_1_to_takers(model, number):
    image = picture()
    given = OnGpu(np.zeros_like(image), stream=number)
    fake_pycuda.LEGACY.put(lambda: np.copyto(given.memory, image.reshape(SIDE, -1)))
    result = model.segment_device(given, stream=number)
    assert result.__cuda_array_interface__["stream"] == 1  # 0 would be refused: "ambiguous", says version 3
    fake_pycuda.LEGACY.run()
    np.testing.assert_array_equal(read(result), model.mask(image))


@pytest.mark.parametrize("theirs", [-1, True, "0", 1.0])
def test_a_stream_is_a_number(model, theirs):
    with pytest.raises(BadInput, match=r"stream must be a CUDA handle as an integer \(PyTorch's stream.cuda_stream"):
        model.segment_device(OnGpu(picture()), stream=theirs)


def test_the_stream_that_an_array_names_is_waited_for(model):
    image, theirs = picture(), stream()
    given = OnGpu(np.zeros_like(image), stream=theirs)
    HELD["stream"][theirs].put(lambda: np.copyto(given.memory, image.reshape(SIDE, -1)))
    np.testing.assert_array_equal(read(model.segment_device(given)), model.mask(image))
    del HELD["stream"][theirs]


def test_the_image_is_kept_until_it_was_read_and_no_longer(model):
    given, theirs = OnGpu(picture()), stream()
    model.segment_device(given, stream=theirs)
    kept = weakref.ref(given)
    del given
    assert kept()
    model.mask(picture()), model.mask(picture())  # through both slots
    gc.collect()
    assert kept() is None
    assert not HELD["event"]
    del HELD["stream"][theirs]


def test_a_result_outlives_its_model_and_is_freed_with_its_last_user(gpu):
    image = picture()
    with open_model(gpu.plan) as model:
        given = OnGpu(image)
        result = model.segment_device(given)
        mask = model.mask(image)
    given.free()
    assert len(fake_pycuda.MEMORY) == 1
    np.testing.assert_array_equal(read(result), mask)
    del result
    gc.collect()
    assert fake_pycuda.nothing_is_held()


def test_on_shared_memory_the_same_comes_out(gpu):
    STATE.integrated = True
    image = picture(100, 70)
    with open_model(gpu.plan) as model:
        np.testing.assert_array_equal(read(model.segment_device(OnGpu(image))), model.mask(image))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: picture(), "an image must be on the GPU, its DLPack device is 1; mask()"),
        (
            lambda: "image",
            "an image must be on the GPU and have __cuda_array_interface__ or __dlpack__, got str; mask()",
        ),
        (lambda: OnGpu(picture(32, 90)), "an image on the GPU must have 64 x 64 px or more, got 90 x 32"),
        (lambda: OnGpu(picture().astype(np.float32)), "an image must be uint8 (H, W, 3) RGB, got float32 (64, 64, 3)"),
        (lambda: OnGpu(picture()[..., 0]), "an image must be uint8 (H, W, 3) RGB, got uint8 (64, 64)"),
        (lambda: OnGpu(np.zeros((64, 64, 4), np.uint8)), "an image must be uint8 (H, W, 3) RGB, got uint8 (64, 64, 4)"),
        (lambda: Packed(picture().astype(np.int64)), "an image must be uint8 or float32, got DLPack type 0 of 64 bits"),
        (lambda: Packed(picture()[:, ::2]), "an image must have its pixels side by side, got strides (192, 6, 1)"),
    ],
)
def test_what_is_no_image_on_the_gpu_is_refused(model, given, message):
    given = given()
    if isinstance(given, Packed):
        given.array = given.array if given.array.dtype != np.uint8 else picture(64, 128)[:, ::2]
        message = message.replace("(192,", "(384,")
    with pytest.raises(BadInput) as e:
        model.segment_device(given)
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((64, 63), np.uint8), "out must be uint8 (64, 64), got uint8 (64, 63)"),
        (np.zeros((64, 64), np.float32), "out must be uint8 (64, 64), got float32 (64, 64)"),
    ],
)
def test_a_result_of_another_shape_or_type_is_refused(model, out, message):
    with pytest.raises(BadInput) as e:
        model.segment_device(OnGpu(picture()), out=OnGpu(out))
    assert message in str(e.value)


def test_a_result_that_must_not_be_written_is_refused(model):
    out = OnGpu(np.zeros((SIDE, SIDE), np.uint8))
    said = out.__cuda_array_interface__
    out.__cuda_array_interface__ = {**said, "data": (said["data"][0], True)}
    with pytest.raises(BadInput, match="out must not be read-only"):
        model.segment_device(OnGpu(picture()), out=out)
    out.__cuda_array_interface__ = said

    class Fixed(Numbered):
        def __dlpack__(self, **named):
            capsule = super().__dlpack__(**named)
            dlpack.Versioned.from_address(dlpack.pointer_of(capsule, dlpack.VERSIONED)).flags = dlpack.READ_ONLY
            return capsule

    with pytest.raises(BadInput, match="out must not be read-only"):
        model.segment_device(OnGpu(picture()), out=Fixed(np.zeros((SIDE, SIDE), np.uint8)))


def test_results_may_be_dropped_by_any_thread_and_leave_no_context_behind(gpu):
    image = OnGpu(picture())
    with open_model(gpu.plan) as model:
        for _ in range(20):
            results = [model.segment_device(image)]
            thread = threading.Thread(target=results.clear)
            thread.start()
            thread.join()
            model.segment_device(image)
        assert fake_pycuda.depth() == 0
        assert STATE.retained == 1  # the model's
    image.free()
    assert fake_pycuda.nothing_is_held()


def test_adaptive_views_are_for_images_of_the_host(model):
    with pytest.raises(BadInput, match="segment_device takes 8, 4 or 1 views"):
        model.segment_device(OnGpu(picture()), "adaptive")


def test_what_fails_on_the_gpu_is_ours_and_keeps_no_image(model):
    given = OnGpu(picture())
    STATE.fail["synchronize"] = fake_pycuda.LogicError("an illegal memory access")
    with pytest.raises(GpuFailed, match="an illegal memory access"):
        model.segment_device(given)
    STATE.fail.clear()
    assert all(slot.run is None for slot in model.backend.at_work)


@pytest.mark.parametrize("code", [400, 900, 906])
@pytest.mark.parametrize("call", ["cuEventRecord", "cuStreamWaitEvent"])
def test_a_fault_of_the_callers_stream_is_that_calls_alone(model, call, code):
    image = picture()
    STATE.refuse[call] = code
    with pytest.raises(GpuFailed, match=call):
        model.segment_device(OnGpu(image))
    STATE.refuse.clear()
    np.testing.assert_array_equal(read(model.segment_device(OnGpu(image))), model.mask(image))


def on_the_gpu(machine, image):
    """Two images that stay on the GPU, in the order of someone's stream, and their masks."""
    theirs, given = stream(), OnGpu(image)
    try:
        with open_model(machine.plan) as model:
            for _ in range(3):
                result = model.segment_device(given, stream=theirs)
                HELD["stream"][theirs].run()
                yield read(result)
            del result
    finally:
        given.free()
        HELD["stream"].pop(theirs, None)


def test_an_error_at_any_call_is_ours_and_leaves_nothing_behind(gpu):
    image = picture(SIDE, 100)
    right = list(on_the_gpu(gpu, image))
    calls = list(LOG)
    outcomes = set()
    for at in range(len(calls)):
        fake_pycuda.reset()
        STATE.fail_at, STATE.error = at, fake_pycuda.LogicError("an illegal memory access")
        try:
            for found, mask in zip(on_the_gpu(gpu, image), right, strict=False):
                np.testing.assert_array_equal(found, mask)
            outcomes.add("mended")
        except DlinkError as e:
            outcomes.add(type(e).__name__)
        STATE.fail_at = None
        if fake_pycuda.MEMORY or any(HELD.values()):
            gc.collect()
        assert fake_pycuda.depth() == 0, calls[at]
        if calls[at] not in (
            "push",
            "cuCtxPushCurrent_v2",
        ):  # where the context can't be had, nothing can be given back
            assert not fake_pycuda.MEMORY, calls[at]
            assert not any(HELD.values()), calls[at]
    assert outcomes == {"mended", "NoEngine", "GpuFailed"}


def test_a_model_on_the_cpu_and_a_closed_one_are_refused(gpu):
    with open_model(gpu.onnx) as model, pytest.raises(BadInput, match="segment_device is for plans"):
        model.segment_device(OnGpu(picture()))
    model = open_model(gpu.plan)
    model.close()
    with pytest.raises(Closed):
        model.segment_device(OnGpu(picture()))


def test_what_is_no_probability_is_said_here_or_where_a_stream_is_given_at_the_next_call(machine):
    gpu = machine(spec=NAN_OF_BLACK, network=infinite)
    black, white = (OnGpu(np.full((SIDE, 3 * SIDE, 3), value, np.uint8)) for value in (0, 255))
    half = OnGpu(np.hstack([WHITE, BLACK, WHITE]))  # the last of its tiles is sound
    words = "an image on the GPU: the network gives values that are not probabilities"
    with open_model(gpu.plan, halo=0) as model:
        for image in (black, half):
            with pytest.raises(EngineFailed, match=words):
                model.segment_device(image)
        assert (read(model.segment_device(white)) == 255).all()
        theirs = 7
        HELD["stream"][theirs] = Queue()
        model.segment_device(black, stream=theirs)
        HELD["stream"][theirs].run()
        found = []
        for _ in range(3):  # the slot's next turn finds it
            try:
                model.segment_device(white)
            except EngineFailed as e:
                found.append(str(e))
        assert len(found) == 1
    HELD["stream"].pop(theirs)
    [image.free() for image in (black, white, half)]
