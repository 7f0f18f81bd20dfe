"""The kernels: their own text on the CPU against HostBackend, and as compiled for each kind of GPU."""

import itertools
import re
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from dlink.runtime import DlinkError, HostBackend, NoEngine, Spec
from dlink.runtime.backend import SLACK
from dlink.runtime.views import ALL, TURN, apply_view, undo_view
from dlink.trt_runtime.kernels import build as build
from tests.support.host_kernels import SOURCE, launch

EDGE = 32
TEXT = SOURCE.read_text()
SOME = [(0,), (1,), (7,), (0, 2, 4, 6), (1, 3), (0, 3, 5), (2, 5, 6, 7), ALL]
SPEC = Spec(channels="BGR", scale=(0.011, 0.012, 0.013), shift=(-1.5, -1.6, -1.7))


def bits(views):
    return sum(1 << view for view in views)


def padded(numbers):
    return (*numbers, *[0.0] * (8 - len(numbers)))


def grid(side, tiles):
    return -(-side // EDGE), -(-side // EDGE), tiles


class Guarded:
    """An array in the middle of a buffer whose rest must stay as it is."""

    def __init__(self, shape, dtype, fill=None):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.all = np.full(size + 512, 0xA5, np.uint8)
        self.array = self.all[256 : 256 + size].view(dtype).reshape(shape)
        if fill is not None:
            self.array[...] = fill

    @property
    def address(self):
        assert (self.all[:256] == 0xA5).all()
        assert (self.all[-256:] == 0xA5).all()
        return self.array.ctypes.data


def spread(tiles, views, dtype=np.float32, spec=SPEC, source=None):
    count, side = tiles.shape[:2]
    planes = tiles.shape[-1]
    given, batch = Guarded(tiles.shape, np.uint8, tiles), Guarded((count * len(views), planes, side, side), dtype)
    numbers = (side, bits(views), spec.channels == "BGR", *spec.scale, *spec.shift)
    name = f"spread_{np.dtype(dtype).name}"
    if planes != 3:
        name = f"spread_bands_{np.dtype(dtype).name}"
        numbers = (*numbers[:3], planes, *padded(spec.scale), *padded(spec.shift))
    launch(name, grid(side, count), given.address, batch.address, *numbers, source=source)
    assert given.address
    assert batch.address
    np.testing.assert_array_equal(given.array, tiles)
    return batch.array


def gather(
    batch, views, forms=("prob", "level", "mask"), threshold=0.5, count=None, first=True, total=None, faults=None
):
    """Mean, steps and mask of a batch; `total` is read and written where the views come in several batches."""
    side = batch.shape[-1]
    tiles = len(batch) // len(views)
    given = Guarded(batch.shape, batch.dtype, batch)
    kinds = {"prob": np.float32, "level": np.uint8, "mask": np.uint8}
    outs = {form: Guarded((tiles, side, side), kinds[form], 7) for form in forms}
    addresses = [outs[form].address if form in outs else 0 for form in kinds] + [faults.address if faults else 0]
    count = len(views) if count is None else count
    sums = total.address if total else 0
    name = f"gather_{batch.dtype.name}"
    launch(name, grid(side, tiles), given.address, sums, side, bits(views), first, count, threshold, *addresses)
    for each in (given, *outs.values(), *filter(None, (total, faults))):
        assert each.address
    return [out.array for out in outs.values()]


def pixels(count, side, seed=0, planes=3):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, planes), np.uint8)


def probabilities(count, side, dtype=np.float32):
    return np.random.default_rng(1).random((count, side, side)).astype(dtype)


def mean_of(batch, views):
    """HostBackend's own mean of what the network said of each view."""
    answers = dict(zip(views, np.moveaxis(batch.reshape(-1, len(views), *batch.shape[1:]), 1, 0), strict=True))
    order = [v for v in views if not v & TURN] + [v for v in views if v & TURN]
    said = iter([answers[view].astype(np.float32) for view in order])
    side = batch.shape[-1]
    zeros = lambda tiles: np.zeros((1, 3, side, side))  # noqa: E731
    spec = type("Tile", (), {"tile": side, "views": ALL, "bands": Spec.bands, "prepare": zeros})
    count = len(batch) // len(views)
    host = HostBackend(lambda x: next(said), spec, max_tiles=count)
    return host.probabilities(np.zeros((count, side, side, 3), np.uint8), order)


@pytest.mark.parametrize("views", SOME, ids=str)
@pytest.mark.parametrize(("count", "side"), [(1, 1), (2, 31), (1, 32), (3, 33), (1, 70)])
def test_spread_writes_what_the_network_reads_on_a_cpu(views, count, side):
    tiles = pixels(count, side)
    x = SPEC.prepare(tiles)
    expected = np.stack([apply_view(x, view) for view in views], 1).reshape(-1, 3, side, side)
    np.testing.assert_array_equal(spread(tiles, views), expected)
    np.testing.assert_array_equal(spread(tiles, views, np.float16), expected.astype(np.float16))


def of_bands(planes, channels):
    """A Spec whose planes are all prepared differently."""
    bands = ("red", "green", "blue", "nir", "b5", "b6", "b7", "b8")[:planes]
    scale, shift = ([start + i * step for i in range(planes)] for start, step in ((0.011, 0.001), (-1.5, -0.1)))
    return Spec(bands=bands, channels=channels, scale=tuple(scale), shift=tuple(shift))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("views", SOME, ids=str)
@pytest.mark.parametrize(
    ("planes", "channels"), [(1, "RGB"), (2, "RGB"), (4, "RGB"), (4, "BGR"), (8, "RGB"), (8, "BGR")]
)
@pytest.mark.parametrize(("count", "side"), [(1, 1), (2, 33)])
def test_spread_takes_one_to_eight_bands(planes, channels, views, count, side, dtype):
    tiles, spec = pixels(count, side, planes=planes), of_bands(planes, channels)
    x = spec.prepare(tiles)
    expected = np.stack([apply_view(x, view) for view in views], 1).reshape(-1, planes, side, side)
    np.testing.assert_array_equal(spread(tiles, views, dtype, spec), expected.astype(dtype))


def test_channels_stay_where_the_network_is_of_red_green_and_blue():
    spec = Spec(channels="RGB", scale=(1, 2, 3), shift=(0, 100, 1000))
    np.testing.assert_array_equal(spread(pixels(1, 40), (0,), spec=spec), spec.prepare(pixels(1, 40)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("views", SOME, ids=str)
@pytest.mark.parametrize(("count", "side"), [(1, 1), (2, 31), (1, 32), (3, 33), (1, 70)])
def test_gather_gives_the_mean_of_hostbackend_to_the_bit(dtype, views, count, side):
    batch = probabilities(count * len(views), side, dtype)
    prob, level, mask = gather(batch, views, threshold=0.45)
    np.testing.assert_array_equal(prob, mean_of(batch, views))
    np.testing.assert_array_equal(level, np.floor(prob * np.float32(255) + np.float32(0.5)).astype(np.uint8))
    np.testing.assert_array_equal(mask, np.where(prob > np.float32(0.45), 255, 0))


@pytest.mark.parametrize("views", [v for n in (1, 2, 3) for v in itertools.combinations(ALL, n)], ids=str)
def test_every_set_of_up_to_three_views_is_spread_and_undone(views):
    tiles = pixels(1, 33)
    red = spread(tiles, views, spec=Spec(channels="RGB", scale=(1 / 255,) * 3, shift=(0, 0, 0)))[:, 0]
    expected = np.mean([undo_view(r, v) for r, v in zip(red, views, strict=True)], 0)
    found = gather(np.ascontiguousarray(red), views, ("prob",))[0][0]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose(found, tiles[0, ..., 0] / np.float32(255), atol=1e-6)


def test_a_probability_at_the_threshold_is_no_road_and_255_steps_have_both_ends():
    batch = np.array([[[0.0, 0.5], [1.0, np.nextafter(np.float32(0.5), np.float32(1))]]], np.float32)
    prob, level, mask = gather(batch, (0,))
    np.testing.assert_array_equal(prob, batch)
    np.testing.assert_array_equal(mask[0], [[0, 0], [255, 255]])
    np.testing.assert_array_equal(level[0], [[0, 128], [255, 128]])


@pytest.mark.parametrize("forms", [("prob",), ("level",), ("mask",), ("prob", "mask")])
def test_only_the_forms_that_have_an_address_are_written(forms):
    batch = probabilities(8, 33)
    whole = dict(zip(("prob", "level", "mask"), gather(batch, ALL), strict=True))
    for form, found in zip(forms, gather(batch, ALL, forms), strict=True):
        np.testing.assert_array_equal(found, whole[form])


@pytest.mark.parametrize("parts", [[(0, 1, 2, 3), (4, 5, 6, 7)], [(0, 2, 4), (1, 3, 5), (6, 7)]], ids=str)
def test_views_may_come_in_several_batches(parts):
    batch = probabilities(8, 45)
    total = Guarded((1, 45, 45), np.float32)
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        found = gather(batch[list(part)], part, count=8 if last else 0, first=i == 0, total=total)
    np.testing.assert_allclose(found[0], gather(batch, ALL)[0], atol=1e-6)


@pytest.mark.parametrize("views", [(0,), (1,), ALL], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 20.0, -20.0])
def test_a_tile_of_what_is_no_probability_is_at_fault_and_no_other(views, value):
    batch = probabilities(3 * len(views), 40).reshape(3, len(views), 40, 40)
    batch[1, -1, 7, 39] = value
    faults = Guarded((3,), np.uint32, 0)
    prob, *_ = gather(batch.reshape(-1, 40, 40), views, faults=faults)
    assert faults.array.tolist() == [0, 1, 0]
    assert ((prob >= 0) & (prob <= 1)).all()
    np.testing.assert_array_equal(prob[[0, 2]], gather(batch[[0, 2]].reshape(-1, 40, 40), views)[0])


def test_a_view_that_is_no_probability_does_not_hide_in_the_mean():
    batch = np.full((8, 40, 40), 0.1, np.float32)
    batch[3, 5, 6] = 1.5
    faults = Guarded((1,), np.uint32, 0)
    gather(batch, ALL, faults=faults)
    assert faults.array.item() == 1


def test_rounding_outside_0_to_1_is_no_fault_and_is_cut_off():
    faults = Guarded((1,), np.uint32, 0)
    prob, level, _ = gather(np.array([[[1.0015, -0.0015]]], np.float32).repeat(2, 1), (0,), faults=faults)
    assert (faults.array.item(), prob.max(), prob.min(), level.max(), level.min()) == (0, 1, 0, 255, 0)


def test_what_counts_as_rounding_is_the_backends():
    assert float(re.search(r"#define SLACK ([\d.e-]+)f", TEXT)[1]) == SLACK


def test_these_tests_would_see_a_barrier_that_is_missing():
    broken = TEXT.replace("__syncthreads();", "", 1)
    assert broken != TEXT
    assert not np.array_equal(spread(pixels(1, 64), ALL, source=broken), spread(pixels(1, 64), ALL))


def test_the_compiled_kernels_are_those_of_the_source():
    assert build.PTX.read_text().startswith(f"// kernels.cu {build.digest(TEXT)}, NVRTC {build.VERSION} ")


def test_nvrtc_makes_the_same_file_again():
    try:
        made = build.build(TEXT)
    except NoEngine as e:
        pytest.skip(f"needs NVRTC: {e}")
    assert made == build.PTX.read_text()
    assert made.splitlines()[1] == ".version 7.4"


def test_nvrtc_says_what_it_does_not_compile():
    try:
        build.library()
    except NoEngine as e:
        pytest.skip(f"needs NVRTC: {e}")
    with pytest.raises(
        DlinkError, match=r"NVRTC does not compile kernels.cu: kernels.cu\(\d+\): error: .*\n  nonsense"
    ):
        build.compile(TEXT + "nonsense")


def test_no_operation_is_fused():
    assert not re.search(r"\bfma\.", build.PTX.read_text())


def ptxas(package, path):
    try:
        return Path(metadata.distribution(package).locate_file(path))
    except metadata.PackageNotFoundError:
        return None


ASSEMBLERS = {
    "12.6": (ptxas("nvidia-cuda-nvcc-cu12", "nvidia/cuda_nvcc/bin/ptxas"), (72, 75, 80, 86, 87, 89, 90)),
    "13.0": (ptxas("nvidia-cuda-nvcc", "nvidia/cu13/bin/ptxas"), (75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121)),
}


@pytest.mark.parametrize(("version", "sm"), [(v, sm) for v, (_, targets) in ASSEMBLERS.items() for sm in targets])
def test_ptxas_takes_the_kernels_without_spilling(version, sm, tmp_path):
    program = ASSEMBLERS[version][0]
    if program is None:
        pytest.skip("needs NVIDIA's assembler: pip install 'dlink[test]' on Linux")
    command = [program, "-arch", f"sm_{sm}", "-v", "-Werror", "--warn-on-spills", build.PTX, "-o", tmp_path / "cubin"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", done.stderr)]
    assert len(registers) == 6
    assert max(registers) <= 64  # four blocks of 256 threads on a multiprocessor
