import cv2
import numpy as np
import pytest

from dlink.imagery.images import find_tiles, read_image, write_image
from dlink.imagery.labels import read_label, read_tile
from dlink.runtime import BadInput


def test_what_is_written_is_read(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    write_image(tmp_path / "a.png", rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)


def test_colours_are_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[[1, 2, 3]]], np.uint8))  # OpenCV takes BGR
    assert read_image(tmp_path / "a.png").tolist() == [[[3, 2, 1]]]


def test_grey_is_repeated_and_alpha_dropped(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.array([[9, 200]], np.uint8))
    cv2.imwrite(str(tmp_path / "alpha.png"), np.array([[[1, 2, 3, 0]]], np.uint8))
    assert read_image(tmp_path / "grey.png").tolist() == [[[9] * 3, [200] * 3]]
    assert read_image(tmp_path / "alpha.png").tolist() == [[[3, 2, 1]]]


def test_a_label_is_road_from_128_on(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 127, 128, 255]], np.uint8))
    assert read_label(tmp_path / "a.png").tolist() == [[False, False, True, True]]


def picture(path, side=4):
    write_image(path, np.zeros((side, side, 3), np.uint8))


def test_deepglobe_folders_pair_tiles_with_labels(tmp_path):
    for name in ("7_sat.jpg", "7_mask.png", "12_sat.jpg", "notes.png"):
        picture(tmp_path / name)
    found = {t.id: t.label for t in find_tiles(tmp_path)}
    assert found == {"7": tmp_path / "7_mask.png", "12": None}


def test_other_folders_are_pictures_without_labels(tmp_path):
    picture(tmp_path / "b.png")
    picture(tmp_path / "a.tif")
    assert [(t.id, t.label) for t in find_tiles(tmp_path)] == [("a", None), ("b", None)]


def test_a_folder_without_tiles_says_what_was_expected(tmp_path):
    with pytest.raises(BadInput, match="no tiles; expected <id>_sat.jpg with <id>_mask.png, or pictures"):
        find_tiles(tmp_path)
    with pytest.raises(BadInput, match="nowhere: not a folder"):
        find_tiles(tmp_path / "nowhere")


def test_a_label_of_another_size_is_refused(tmp_path):
    picture(tmp_path / "7_sat.png", 4)
    picture(tmp_path / "7_mask.png", 5)
    with pytest.raises(BadInput, match="7_mask.png: 5 x 5 px, its image 7_sat.png is 4 x 4"):
        read_tile(find_tiles(tmp_path)[0])
