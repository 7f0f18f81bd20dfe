import numpy as np
import pytest

from dlink.runtime import BadInput, Closed, HostBackend, Segmenter, Spec, open_model
from dlink.runtime.life import LIVES
from tests.support.models import red, write_blur, write_pointwise


@pytest.fixture
def model(tmp_path):
    with open_model(write_pointwise(tmp_path / "red.onnx", Spec(tile=64))) as model:
        yield model


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 200), (63, 65), (64, 64), (65, 300), (150, 7)])
def test_any_size_from_one_pixel_up(model, height, width):
    picture = image(height, width)
    prob = model.probabilities(picture)
    assert (prob.shape, prob.dtype) == ((height, width), np.float32)
    np.testing.assert_allclose(prob, red(picture), atol=1e-6)


def test_the_mask_is_255_where_probability_is_greater_than_the_threshold():
    values = np.array([[0.2, 0.5, 0.50001, 0.9]], np.float32)
    backend = HostBackend(lambda x: np.pad(values, ((0, 31), (0, 28)))[None], Spec(tile=32, views=(0,)))
    mask = Segmenter(backend).mask(np.zeros((1, 4, 3), np.uint8))
    np.testing.assert_array_equal(mask, np.array([[0, 0, 255, 255]], np.uint8))


def test_the_threshold_can_be_the_callers(tmp_path):
    picture = image(64, 64)
    with open_model(write_pointwise(tmp_path / "red.onnx", Spec(tile=64)), threshold=0.9) as model:
        np.testing.assert_array_equal(model.mask(picture) > 0, red(picture) > 0.9)


@pytest.mark.parametrize(("views", "calls"), [(8, 8), (4, 4), (1, 1), (None, 3)])
def test_views_are_selectable_per_call(views, calls):
    count = []

    def net(x):
        count.append(1)
        return np.zeros((1, 32, 32), np.float32)

    Segmenter(HostBackend(net, Spec(tile=32, views=(0, 1, 2)))).mask(image(32, 32), views)
    assert len(count) == calls


def test_other_numbers_of_views_are_refused(model):
    with pytest.raises(BadInput, match="views must be 8, 4, 1 or adaptive, got 3"):
        model.mask(image(8, 8), views=3)


def test_no_seam_where_the_halo_covers_the_networks_reach(tmp_path):
    picture = image(150, 170)
    whole = open_model(write_blur(tmp_path / "whole.onnx", Spec(tile=192), radius=5))
    tiled = open_model(write_blur(tmp_path / "tiled.onnx", Spec(tile=64), radius=5), halo=5)
    inside = np.s_[:145, :165]  # at the image's right and bottom edge the whole one sees mirrored pixels
    np.testing.assert_allclose(
        tiled.probabilities(picture, 1)[inside], whole.probabilities(picture, 1)[inside], atol=1e-6
    )


def test_a_halo_too_small_shows(tmp_path):
    picture = image(150, 170)
    whole = open_model(write_blur(tmp_path / "whole.onnx", Spec(tile=192), radius=5))
    tiled = open_model(write_blur(tmp_path / "tiled.onnx", Spec(tile=64), radius=5), halo=4)
    difference = np.abs(tiled.probabilities(picture, 1) - whole.probabilities(picture, 1))[:145, :165]
    assert difference.max() > 1e-3


def test_submitted_images_come_back_in_order(model):
    pictures = [image(50, 60, seed) for seed in range(6)]
    futures = [model.submit(p) for p in pictures]
    for picture, future in zip(pictures, futures, strict=True):
        np.testing.assert_array_equal(future.result(timeout=30) > 0, red(picture) > 0.5)


def test_close_finishes_what_was_submitted(model):
    futures = [model.submit(image(200, 200, seed)) for seed in range(4)]
    model.close()
    assert all(f.done() and f.exception() is None for f in futures)


def test_use_after_close_is_refused(model):
    model.close()
    model.close()
    with pytest.raises(Closed, match="this model is closed; open it again"):
        model.mask(image(8, 8))
    with pytest.raises(Closed, match="this model is closed; open it again"):
        model.submit(image(8, 8))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((8, 8), np.uint8), "repeat grey"),
        (np.zeros((8, 8, 4), np.uint8), "drop alpha"),
        (np.zeros((8, 8, 3), np.uint16), "uint16.*scale it to 0..255"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        ([[1, 2, 3]], "got list"),
        (None, "got NoneType"),
    ],
)
def test_other_images_are_refused_with_the_way_to_mend_them(model, bad, message):
    with pytest.raises(BadInput, match=message):
        model.mask(bad)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_threshold_outside_is_refused(tmp_path, threshold):
    path = write_pointwise(tmp_path / "red.onnx", Spec(tile=64))
    with pytest.raises(BadInput, match="threshold must be in"):
        open_model(path, threshold=threshold)


def test_a_halo_that_does_not_fit_is_refused_at_opening(tmp_path):
    path = write_pointwise(tmp_path / "red.onnx", Spec(tile=64))
    with pytest.raises(BadInput, match="a halo of 32 px leaves nothing of a 64 px tile"):
        open_model(path, halo=32)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"halo": "1"}, "halo must be a whole number from 0 to 4096, got '1'"),
        ({"halo": 1.5}, "halo must be a whole number from 0 to 4096, got 1.5"),
        ({"halo": True}, "halo must be a whole number from 0 to 4096, got True"),
        ({"halo": -1}, "halo must be a whole number from 0 to 4096, got -1"),
        ({"threads": "2"}, "threads must be a whole number from 1 to 1024, got '2'"),
        ({"threads": 10**12}, "threads must be a whole number from 1 to 1024, got 1000000000000"),
        ({"slots": 0}, "slots must be a whole number from 1 to 64, got 0"),
        ({"slots": "2"}, "slots must be a whole number from 1 to 64, got '2'"),
        ({"threshold": "0.5"}, r"threshold must be in \[0, 1\), got '0.5'"),
        ({"threshold": True}, r"threshold must be in \[0, 1\), got True"),
        ({"threshold": 10**400}, r"threshold must be in \[0, 1\), got 1000"),
        ({"keys": None}, "keys must be a sequence of paths, got None"),
        ({"doubt": "much"}, "doubt must be from 0 to 0.5, got 'much'"),
        ({"require_verdict": "no"}, "require_verdict must be True or False, got 'no'"),
        ({"keys": "fleet.pub"}, r"keys must be a sequence of paths, got 'fleet.pub'; write keys=\['fleet.pub'\]"),
        ({"keys": [3]}, "keys must be a str or a pathlib.Path, got 3"),
        ({"path": b"red.onnx"}, "path must be a str or a pathlib.Path, got b'red.onnx'"),
        ({"path": None}, "path must be a str or a pathlib.Path, got None"),
        ({"path": "none.onnx"}, "none.onnx: no such file; dlink-export writes .onnx files, dlink-build plans"),
        ({"path": "none.plan"}, "none.plan: no such file; dlink-export writes .onnx files, dlink-build plans"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(tmp_path, given, message):
    path = write_pointwise(tmp_path / "red.onnx", Spec(tile=64))
    with pytest.raises(BadInput, match=message):
        open_model(**{"path": path, **given})


def test_a_folder_is_no_model(tmp_path):
    (tmp_path / "roads.onnx").mkdir()
    with pytest.raises(BadInput, match="roads.onnx: a folder; dlink-export writes"):
        open_model(tmp_path / "roads.onnx")


def test_numbers_of_numpy_are_numbers(tmp_path):
    path = write_pointwise(tmp_path / "red.onnx", Spec(tile=64))
    with open_model(path, halo=np.int64(8), threads=np.int32(1), threshold=np.float32(0.5)) as model:
        assert model.mask(image(8, 8), np.int64(1)).shape == (8, 8)


def test_a_model_that_is_not_opened_after_all_is_freed(tmp_path):
    path = write_pointwise(tmp_path / "red.onnx", Spec(tile=64))
    before = len(LIVES)
    with pytest.raises(BadInput):
        open_model(path, halo=32)
    assert len(LIVES) == before


@pytest.mark.parametrize("views", [True, "8", 8.0, [8]])
def test_views_that_are_no_number_are_refused(model, views):
    with pytest.raises(BadInput, match="views must be 8, 4, 1 or adaptive, got"):
        model.mask(image(8, 8), views)


BANDS = ("red", "green", "blue", "nir")
FOUR = Spec(tile=64, bands=BANDS, scale=(3.2 / 255,) * 4, shift=(-1.6,) * 4)


@pytest.fixture
def four(tmp_path):
    with open_model(write_pointwise(tmp_path / "four.onnx", FOUR)) as model:
        yield model


def test_an_image_of_four_bands_goes_in_as_the_spec_has_them(four):
    picture = np.random.default_rng(0).integers(0, 256, (90, 150, 4), np.uint8)
    np.testing.assert_allclose(four.probabilities(picture), red(picture), atol=1e-6)
    np.testing.assert_array_equal(four.submit(picture).result(), four.mask(picture))
    np.testing.assert_array_equal(four.mask(picture, "adaptive"), four.mask(picture))


@pytest.mark.parametrize("planes", [1, 3, 5])
def test_an_image_of_another_number_of_planes_is_refused_with_the_bands(four, planes):
    picture = np.zeros((90, 150, planes), np.uint8)
    words = rf"^this model takes 4 bands \(red, green, blue, nir\), got an image of {planes}$"
    for use in (four.mask, four.submit, lambda image: list(four.pieces(lambda w: image[w.outer], *image.shape[:2]))):
        with pytest.raises(BadInput, match=words):
            use(picture)


def test_what_is_no_image_is_refused_with_the_number_of_planes(four):
    for wrong, words in (
        ([1], r"a NumPy array uint8 \(H, W, 4\), got list"),
        (np.zeros((9, 9), np.uint8), r"uint8 \(H, W, 4\), got uint8 \(9, 9\)$"),
        (np.zeros((9, 9, 4)), r"uint8 \(H, W, 4\), got float64 \(9, 9, 4\): scale it to 0..255 and 8 bits"),
    ):
        with pytest.raises(BadInput, match=words):
            four.mask(wrong)
