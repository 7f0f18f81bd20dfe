"""A flight over a generated scene: video with telemetry, and the map that is right.

python -m tests.support.flight FILE.ts SECONDS     write a flight's video
"""

import math
import sys
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform

from dlink.scenes.scene import scene
from tests.support.klv import camera
from tests.support.video import RATE, TICKS

EAST, NORTH = 500_000.0, 5_200_000.0  # UTM 32 north, the world's middle, where the grid's north is true north
SEED = 5  # of a world of half a metre a pixel, with many roads
WIDTH, HEIGHT, FOV = 640, 360, 60.0
ALTITUDE, GROUND = 620.0, 500.0
SPEED, SETS = 15.0, 10  # metres a second; sets of telemetry a second


@cache
def world():
    """The world: its `image` and `mask`, and `gsd_m` metres a pixel."""
    return scene(SEED)


def place(seconds):
    """Metres east and north of the middle, and the heading, on a lying eight."""
    t = seconds * SPEED / 110
    x, y = 110 * math.sin(t), 70 * math.sin(2 * t)
    east, north = 110 * math.cos(t), 140 * math.cos(2 * t)
    return x, y, math.degrees(math.atan2(east, north)) % 360


def frame_at(seconds):
    """What the camera sees that looks straight down, its top to the heading, uint8 (HEIGHT, WIDTH, 3)."""
    x, y, heading = place(seconds)
    metres = 2 * (ALTITUDE - GROUND) * math.tan(math.radians(FOV / 2)) / WIDTH
    angle = math.radians(heading)
    right, up = np.array([math.cos(angle), -math.sin(angle)]), np.array([math.sin(angle), math.cos(angle)])
    # A pixel's middle (column, row) of the frame -> metres -> a pixel of the world, whose middle is at one half.
    a = metres / world().gsd_m
    matrix = np.array([[a * right[0], -a * up[0], 0.0], [-a * right[1], a * up[1], 0.0]])
    side, cell = len(world().image), world().gsd_m
    middle = np.array([side / 2 + x / cell - 0.5, side / 2 - y / cell - 0.5])
    matrix[:, 2] = middle - matrix[:, :2] @ np.array([WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5])
    return cv2.warpAffine(world().image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def write_flight(path, seconds, rate=RATE):
    """A video of a flight, `rate` frames a second, MPEG-TS with H.264 and KLV."""
    with av.open(str(path), "w", format="mpegts", options={"flush_packets": "1"}) as file:
        video = file.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "18", "g": "15", "bf": "0"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        data = file.add_data_stream("klv")
        for i in range(round(seconds * rate)):
            x, y, heading = place(i / rate)
            if i % (rate // SETS) == 0:
                (lon,), (lat,) = transform(CRS.from_epsg(32632), CRS.from_epsg(4326), [EAST + x], [NORTH + y])
                packet = av.Packet(camera(1.7e9 + i / rate, lat, lon, ALTITUDE, heading, -90.0, fov=FOV, ground=GROUND))
                packet.time_base, packet.stream = TICKS, data
                packet.pts = packet.dts = i * 90000 // rate
                file.mux(packet)
            frame = av.VideoFrame.from_ndarray(frame_at(i / rate), format="rgb24")
            frame.pts = i
            for packet in video.encode(frame):
                file.mux(packet)
        for packet in video.encode():
            file.mux(packet)
    return path


if __name__ == "__main__":
    write_flight(Path(sys.argv[1]), float(sys.argv[2]))
