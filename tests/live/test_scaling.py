"""Frames in the network's ground resolution, and their roads in the frame's size."""

import numpy as np
import pytest

from dlink.live import Frame, Live, Pose
from dlink.live.ground.ground import Flat
from dlink.live.scaling import COARSEST, Scaling, resized, scaled
from dlink.runtime import BadInput, HostBackend, Segmenter, Spec

SPEC = Spec(tile=64, views=(0,), gsd_m=0.5)
POSE = Pose(latitude=47.0, longitude=8.0, height_m=120.0, yaw=0.0, pitch=-90.0, roll=0.0, fov=60.0)


def frame(pose=None):
    return Frame(id=7, captured=0.0, pixels=np.zeros((1, 1, 3), np.uint8), pose=pose)


@pytest.mark.parametrize(("metres", "scale"), [(0.1, 0.2), (0.5, 1.0), (0.49, 1.0), (0.52, 1.0), (1.0, 2.0)])
def test_a_resolution_is_a_scale_and_one_that_is_near_is_the_networks_own(metres, scale):
    assert Scaling(SPEC, metres).scale(frame(), 10, 10) == pytest.approx(scale)


def test_the_scale_follows_from_a_frames_pose():
    metres = 2 * 120 * np.tan(np.radians(30)) / 1280
    assert Scaling(SPEC, Flat()).scale(frame(POSE), 720, 1280) == pytest.approx(metres / 0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("pose", "words"),
    [(None, "it has no pose"), (Pose(latitude=47.0, longitude=8.0, height_m=120.0), "its pose does not tell")],
)
def test_a_frame_whose_resolution_is_not_known_is_refused(pose, words):
    with pytest.raises(BadInput, match=f"frame 7: its ground resolution is not known, because {words}"):
        Scaling(SPEC, Flat()).scale(frame(pose), 720, 1280)


def test_frames_that_are_far_too_coarse_are_refused():
    with pytest.raises(BadInput, match="times coarser"):
        Scaling(SPEC, 0.5 * COARSEST)
    high = Pose(**(vars(POSE) | {"height_m": 9000.0}))
    with pytest.raises(BadInput, match="fly lower"):
        Scaling(SPEC, Flat()).scale(frame(high), 720, 1280)


def test_a_frame_that_would_become_huge_is_refused():
    with pytest.raises(BadInput, match="133 million pixels"):
        Scaling(SPEC, 2.0).scale(frame(), 2160, 3840)


def test_fewer_pixels_are_averages():
    noise = np.random.default_rng(0).integers(0, 256, (180, 320, 3), np.uint8)
    image = noise.repeat(4, axis=0).repeat(4, axis=1)
    small = scaled(image, 0.2)
    wanted = image.reshape(144, 5, 256, 5, 3).mean(axis=(1, 3))
    assert small.shape == (144, 256, 3)
    assert np.abs(small - wanted).mean() < 3  # pixels that two averages share weigh a little differently
    even = scaled(image, 0.25)
    assert np.abs(even - image.reshape(180, 4, 320, 4, 3).mean(axis=(1, 3))).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (144, 256), (1441, 3)])
def test_any_size_becomes_any_size(size):
    image = np.full((101, 33, 3), 77, np.uint8)
    assert resized(image, *size).shape == (*size, 3) and (resized(image, *size) == 77).all()
    assert resized(image[..., 0].copy(), *size).shape == size


def test_roads_come_back_in_the_frames_size_and_place():
    """A road of 40 px in a frame of 0.1 m is 8 px of the network, and 40 px of the mask again."""
    seen = []

    def net(x):
        seen.append(x.shape)
        return (x[:, 2] > 0).astype(np.float32)

    image = np.zeros((200, 300, 3), np.uint8)
    image[:, 100:140] = 255
    with Segmenter(HostBackend(net, SPEC)) as model, Live(model, deadline=None, ground=0.1) as live:
        live.offer(image)
        roads = live.latest(timeout=30)
    assert roads.scale == pytest.approx(0.2) and roads.mask.shape == (200, 300)
    assert seen[-1] == (1, 3, 64, 64)
    columns = np.flatnonzero(roads.mask[100])
    assert abs(columns[0] - 100) <= 3 and abs(columns[-1] - 139) <= 3


def test_a_frame_is_not_touched_where_nothing_is_scaled():
    image = np.zeros((4, 4, 3), np.uint8)
    assert scaled(image, 1.0) is image
