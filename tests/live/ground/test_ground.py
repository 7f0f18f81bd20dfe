"""The ground against a world that is rendered by other means: resolution, footprints, and maps without a shift."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from dlink.live import Pose
from dlink.live.ground import dem
from dlink.live.ground.dem import Dem
from dlink.live.ground.earth import earth_centred, from_local, geodetic, to_local
from dlink.live.ground.ground import Flat
from dlink.live.ground.laying import Cells, cells_at, lay
from dlink.runtime import BadInput

UTM = CRS.from_epsg(32632)
EAST, NORTH = 500_000.0, 5_200_000.0  # on the zone's middle meridian, where the grid's north is true north
SIDE, CELL = 1600, 0.5  # of the world: pixels, metres
WIDTH, HEIGHT, FOV = 480, 320, 60.0


def world():
    """Roads as lines on a plane, uint8 (SIDE, SIDE); its middle is at (EAST, NORTH)."""
    y, x = np.mgrid[:SIDE, :SIDE] * CELL - SIDE * CELL / 2
    roads = np.abs(x - 12) < 4
    for a, b, c in ((0.3, 1.0, 25.0), (-0.8, 1.0, -60.0), (1.0, 0.15, 130.0), (0.05, 1.0, 170.0), (1, -0.2, -170)):
        roads |= np.abs(a * x + b * y + c) < 4 * math.hypot(a, b)
    roads |= np.abs(np.hypot(x - 60, y + 40) - 90) < 4
    return np.where(roads, np.uint8(255), np.uint8(0))


WORLD = world()


def hill(x, y):
    """The height of the ground at metres east and north of the middle."""
    return 40 * np.exp(-((x - 30) ** 2 + (y - 20) ** 2) / (2 * 120.0**2))


def level(x, y):
    return np.zeros_like(x)


def rotated(yaw, pitch, roll):
    """Forward, right and down of the image as east, north, up: by turning three vectors, one after another."""

    def about(axis, vector, degrees):
        angle = math.radians(degrees)
        return (
            vector * math.cos(angle)
            + np.cross(axis, vector) * math.sin(angle)
            + axis * (axis @ vector) * (1 - math.cos(angle))
        )

    forward, right, down = np.array([0.0, 1, 0]), np.array([1.0, 0, 0]), np.array([0.0, 0, -1])
    forward, right = (about(np.array([0.0, 0, -1]), v, yaw) for v in (forward, right))
    forward, down = (about(right, v, pitch) for v in (forward, down))
    right, down = (about(forward, v, roll) for v in (right, down))
    return forward, right, down


def rendered(east, north, altitude, yaw, pitch, roll, surface=level):
    """What a camera at metres from the middle sees, uint8 (HEIGHT, WIDTH): each ray is followed to the ground."""
    forward, right, down = rotated(yaw, pitch, roll)
    focal = WIDTH / 2 / math.tan(math.radians(FOV / 2))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = forward + (columns[..., None] - WIDTH / 2) / focal * right + (rows[..., None] - HEIGHT / 2) / focal * down

    if surface is level:
        with np.errstate(divide="ignore"):
            reach = np.where(rays[..., 2] < 0, -altitude / rays[..., 2], np.nan)
        return painted(east + rays[..., 0] * reach, north + rays[..., 1] * reach)

    def under(reach):
        z = altitude + rays[..., 2] * reach
        return z <= surface(east + rays[..., 0] * reach, north + rays[..., 1] * reach)

    low, high = np.zeros((HEIGHT, WIDTH)), np.full((HEIGHT, WIDTH), np.nan)
    for step in np.arange(10.0, 800.0, 10.0):
        high = np.where(np.isnan(high) & under(step), step, high)
        low = np.where(np.isnan(high), step, low)
    for _ in range(12):
        middle = (low + high) / 2
        below = under(middle)
        low, high = np.where(below, low, middle), np.where(below, middle, high)
    return painted(east + rays[..., 0] * high, north + rays[..., 1] * high)


def painted(x, y):
    """The world at metres east and north of its middle."""
    column = np.floor((x + SIDE * CELL / 2) / CELL)
    row = np.floor((SIDE * CELL / 2 - y) / CELL)
    inside = (column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE)
    out = np.zeros((HEIGHT, WIDTH), np.uint8)
    # The world's picture has its y downwards as it was painted: row 0 is at the top, which is north.
    out[inside] = WORLD[row[inside].astype(int), column[inside].astype(int)]
    return out


def pose_at(east, north, altitude, yaw, pitch, roll, **values):
    (lon,), (lat,) = transform(UTM, CRS.from_epsg(4326), [EAST + east], [NORTH + north])
    given = {"altitude_m": altitude, "height_m": altitude} | values
    return Pose(latitude=lat, longitude=lon, yaw=yaw, pitch=pitch, roll=roll, fov=FOV, **given)


def world_at(laid):
    """The world on the cells of a frame that was laid."""
    rows = np.arange(laid.levels.shape[0]) + laid.row
    columns = np.arange(laid.levels.shape[1]) + laid.column
    x = (columns + 0.5) * CELL - EAST + SIDE * CELL / 2
    y = SIDE * CELL / 2 - (-(rows + 0.5) * CELL - NORTH)
    row, column = np.floor(y / CELL).astype(int), np.floor(x / CELL).astype(int)
    padded = np.pad(WORLD, 4000)
    return padded[np.clip(row + 4000, 0, 9000)][:, np.clip(column + 4000, 0, 9000)] > 0


def iou(a, b):
    return (a & b).sum() / max(1, (a | b).sum())


VIEWS = [(0, 0, 120, 0, -90, 0), (20, -30, 120, 137, -90, 0), (-10, 5, 100, 45, -60, 0), (0, -80, 150, 350, -40, 5),
         (40, 0, 90, 200, -70, -12)]  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("surface", [level, hill])
def test_a_frame_lies_on_the_map_where_the_world_has_it(view, surface, tmp_path):
    pose = pose_at(*view)
    ground = Flat() if surface is level else dem_of(tmp_path, surface)
    laid = lay(rendered(*view, surface), pose, ground, Cells(UTM, CELL))
    found, wanted = (laid.levels > 127) & laid.seen, world_at(laid)
    scores = {
        (dy, dx): iou(np.roll(found, (dy, dx), (0, 1))[3:-3, 3:-3], (wanted & laid.seen)[3:-3, 3:-3])
        for dy in (-2, -1, 0, 1, 2)
        for dx in (-2, -1, 0, 1, 2)
    }
    assert max(scores, key=scores.get) == (0, 0) and scores[0, 0] > 0.75
    assert laid.seen.sum() > 5000


def dem_of(folder, surface, crs=UTM, **options):
    """An elevation model of 2 m cells, as a file."""
    cell, side = 2.0, 700
    y, x = np.mgrid[:side, :side] * cell + cell / 2 - side * cell / 2
    path = folder / "dem.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=1, dtype="float32", crs=crs, nodata=-9999,
        transform=Affine(cell, 0, EAST - side * cell / 2, 0, -cell, NORTH + side * cell / 2),
    ) as file:  # fmt: skip
        file.write(surface(x, -y).astype(np.float32), 1)
    return Dem(path)


def test_the_resolution_is_that_of_a_pinhole():
    pose = Pose(latitude=47.0, longitude=8.0, height_m=120.0, yaw=33.0, pitch=-90.0, roll=0.0, fov=FOV)
    assert Flat().resolution(pose, 1920, 1080) == pytest.approx(2 * 120 * math.tan(math.radians(30)) / 1920, rel=1e-5)
    oblique = Pose(latitude=47.0, longitude=8.0, height_m=120.0, yaw=33.0, pitch=-30.0, roll=0.0, fov=FOV)
    across = 240 * 2 * math.tan(math.radians(30)) / 1920  # the middle is twice as far
    assert Flat().resolution(oblique, 1920, 1080) == pytest.approx(across * math.sqrt(2), rel=2e-3)


def test_a_frame_that_is_half_as_high_has_its_own_vertical_field():
    down = {"yaw": 0.0, "pitch": -90.0, "roll": 0.0}
    pose = Pose(latitude=47.0, longitude=8.0, height_m=100.0, **down, fov=60.0, vertical_fov=60.0)
    corners = Flat().footprint(pose, 1000, 500).corners
    local = to_local(47.0, 8.0, *np.array(corners).T)
    side = 2 * 100 * math.tan(math.radians(30))
    assert local[0] - local[2] == pytest.approx([side, -side], rel=1e-4)


def test_the_corners_of_a_footprint_are_in_the_images_order():
    pose = Pose(latitude=47.0, longitude=8.0, height_m=100.0, yaw=90.0, pitch=-90.0, roll=0.0, fov=60.0)
    found = Flat().footprint(pose, 800, 600)
    local = to_local(47.0, 8.0, *np.array(found.corners).T)
    assert not found.clamped
    signs = [tuple(np.sign(np.round(each, 3)).astype(int)) for each in local]  # north, east; the top looks east
    assert signs == [(1, 1), (-1, 1), (-1, -1), (1, -1)]


def test_a_corner_at_the_horizon_is_clamped_and_said():
    pose = Pose(latitude=47.0, longitude=8.0, height_m=100.0, yaw=0.0, pitch=-10.0, roll=0.0, fov=60.0)
    found = Flat().footprint(pose, 800, 600)
    local = to_local(47.0, 8.0, *np.array(found.corners).T)
    assert found.clamped and np.linalg.norm(local, axis=1).max() < 100 / math.tan(math.radians(5)) * 1.01
    assert Flat().resolution(Pose(**(vars(pose) | {"pitch": 0.0})), 800, 600) is None
    assert Flat().ground_of(pose, 800, 600, 400, 0) is None
    assert Flat().ground_of(pose, 800, 600, 400, 600) is not None


@pytest.mark.parametrize("missing", ["height_m", "yaw", "pitch", "roll", "fov"])
def test_what_a_pose_does_not_tell_is_not_guessed(missing):
    known = {"height_m": 100.0, "yaw": 0.0, "pitch": -90.0, "roll": 0.0, "fov": 60.0}
    pose = Pose(latitude=47.0, longitude=8.0, **(known | {missing: None}))
    assert Flat().resolution(pose, 800, 600) is None and Flat().footprint(pose, 800, 600) is None
    assert lay(np.zeros((60, 80), np.uint8), pose, Flat(), cells_at(pose, 0.5)) is None


def test_an_elevation_is_compared_with_the_altitude_and_not_with_a_height():
    pose = Pose(latitude=47.0, longitude=8.0, altitude_m=620.0, height_m=7.0, yaw=0.0, pitch=-90.0, roll=0.0, fov=60.0)
    assert Flat(500).resolution(pose, 1000, 800) == pytest.approx(
        120 / 7 * Flat().resolution(pose, 1000, 800), rel=1e-6
    )
    assert Flat(700).resolution(pose, 1000, 800) is None  # the camera would be below the ground


def test_the_resolution_over_a_model_is_that_of_its_surface(tmp_path):
    ground = dem_of(tmp_path, hill)
    pose = pose_at(30, 20, 140.0, 0, -90, 0)
    assert ground.resolution(pose, 1000, 800) == pytest.approx(2 * 100 * math.tan(math.radians(30)) / 1000, rel=0.01)


def test_ground_that_a_model_does_not_know_is_not_guessed(tmp_path):
    ground = dem_of(tmp_path, lambda x, y: np.where(x > 0, 10.0, -9999.0))
    assert ground.resolution(pose_at(-50, 0, 100.0, 0, -90, 0), 400, 300) is None
    assert ground.resolution(pose_at(200, 0, 100.0, 0, -90, 0), 400, 300) is not None
    assert ground.resolution(pose_at(100_000, 0, 100.0, 0, -90, 0), 400, 300) is None
    assert ground.resolution(pose_at(200, 0, None, 0, -90, 0, height_m=90.0), 400, 300) is None


def test_threads_that_look_at_places_far_apart_get_the_ground_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(dem, "AROUND", 64)  # so that each has to read again
    ground = dem_of(tmp_path, hill)
    poses = [pose_at(x, x / 2, 140.0, 30, -70, 0) for x in range(-500, 501, 100)]
    alone = [ground.resolution(pose, 1000, 800) for pose in poses]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: ground.resolution(poses[i % len(poses)], 1000, 800), range(400)))
    assert together == [alone[i % len(poses)] for i in range(400)] and len(set(alone)) > 5


def test_a_model_costs_milliseconds_a_frame(tmp_path):
    ground, pose = dem_of(tmp_path, hill), pose_at(30, 20, 140.0, 0, -60, 0)
    ground.footprint(pose, 1000, 800)
    begun = time.process_time()
    for _ in range(10):
        ground.footprint(pose, 1000, 800)
    assert time.process_time() - begun < 10 * 0.05


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"altitude_m": None}, "the height above the ground"),
        ({"altitude_m": 420.0}, "80 m below the ground"),
        ({"fov": None}, "all angles and the field of view"),
        ({"pitch": 0.0}, "the horizon"),
    ],
)
def test_why_a_pose_tells_no_resolution(changed, words):
    known = {"altitude_m": 620.0, "yaw": 0.0, "pitch": -90.0, "roll": 0.0, "fov": 60.0}
    pose = Pose(latitude=47.0, longitude=8.0, **(known | changed))
    assert Flat(500).resolution(pose, 800, 600) is None
    assert words in Flat(500).missing(pose, 800, 600)


def test_a_file_that_is_no_elevation_model_is_refused(tmp_path):
    (tmp_path / "a.tif").write_text("none")
    with pytest.raises(BadInput, match="cannot be read as an elevation model"):
        Dem(tmp_path / "a.tif")


def test_places_on_the_earth_agree_with_proj():
    rng = np.random.default_rng(0)
    lat, lon, height = rng.uniform(-80, 80, 50), rng.uniform(-180, 180, 50), rng.uniform(-100, 9000, 50)
    x, y, z = transform(CRS.from_epsg(4979), CRS.from_epsg(4978), lon.tolist(), lat.tolist(), height.tolist())
    np.testing.assert_allclose(earth_centred(lat, lon, height), np.stack([x, y, z], -1), atol=1e-3)
    for found, wanted in zip(geodetic(earth_centred(lat, lon, height)), (lat, lon, height), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    local = rng.uniform(-3000, 3000, (50, 2))
    np.testing.assert_allclose(to_local(47.0, 8.0, *from_local(47.0, 8.0, local)), local, atol=2e-3)


@pytest.mark.parametrize(
    ("lat", "lon", "zone"), [(47, 8, 32632), (-33, 151, 32756), (0, -180, 32601), (10, 179.9, 32660)]
)
def test_a_map_is_in_the_zone_of_its_place(lat, lon, zone):
    assert cells_at(Pose(latitude=lat, longitude=lon), 0.5).crs.to_epsg() == zone
