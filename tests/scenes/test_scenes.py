import hashlib
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from dlink.runtime import BadInput
from dlink.scenes import scene, with_roads


def test_a_seed_is_a_scene_in_any_process():
    made = scene(3, 256)
    code = "import hashlib; from dlink.scenes import scene; s = scene(3, 256)\n"
    code += "print(hashlib.sha256(s.image.tobytes() + s.mask.tobytes()).hexdigest())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert hashlib.sha256(made.image.tobytes() + made.mask.tobytes()).hexdigest() == there


def test_seeds_differ():
    assert len({scene(seed, 128).image.tobytes() for seed in range(8)}) == 8


@pytest.mark.parametrize("size", [128, 256, 544])
def test_shapes_and_values(size):
    made = scene(1, size)
    assert (made.image.shape, made.image.dtype) == ((size, size, 3), np.uint8)
    assert (made.mask.shape, made.mask.dtype) == ((size, size), np.uint8)
    assert set(np.unique(made.mask)) <= {0, 255}
    assert 0.3 <= made.gsd_m <= 1.0


@pytest.mark.parametrize("size", [96, 100, 0, 8192])
def test_other_sizes_are_refused(size):
    with pytest.raises(BadInput, match=str(size)):
        scene(1, size)


def test_no_brightness_tells_road_from_ground_over_many_scenes():
    made = with_roads(12, 256)
    grey = np.stack([m.image.mean(axis=2) for m in made])
    road = np.stack([m.mask > 0 for m in made])
    bands = [(lo, hi) for lo in range(0, 256, 16) for hi in range(lo + 16, 257, 16)]
    assert max(iou((grey >= lo) & (grey < hi), road) for lo, hi in bands) < 0.4


def test_roads_stand_out_from_the_ground_beside_them():
    for made in with_roads(6, 256):
        road = made.mask > 0
        beside = (cv2.dilate(made.mask, np.ones((21, 21), np.uint8)) > 0) & ~road
        colours = [np.median(made.image[where], axis=0) for where in (road, beside)]
        assert np.abs(colours[0] - colours[1]).max() > 4


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_some_scenes_have_no_road_and_most_do():
    shares = [(scene(seed, 128).mask > 0).mean() for seed in range(40)]
    assert 0 < sum(s == 0 for s in shares) < 20


def test_with_roads_gives_scenes_with_roads():
    assert all((made.mask > 0).mean() >= 0.05 for made in with_roads(3, 128, least=0.05))


def test_a_scene_of_1024_px_takes_about_a_second():
    scene(0, 128)
    took = []
    for seed in range(3):
        start = time.process_time()
        scene(seed, 1024)
        took.append(time.process_time() - start)
    assert min(took) < 1.5  # of one processor, on a busy machine; about 0.6 on a quiet one
