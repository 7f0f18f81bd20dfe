"""Damaged pictures: an error in one line, whatever decodes them, and nothing on stderr."""

import ast
import os
import subprocess
import sys
import threading
from functools import cache
from io import BytesIO

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile

from dlink.imagery.captured_stderr import captured_stderr
from dlink.imagery.images import read_image
from dlink.imagery.reading import Reading
from dlink.imagery.source import opened
from dlink.imagery.tiff import Blocks, directories
from dlink.runtime import BadInput
from dlink.runtime.windows import cover
from tests.support.environments import FOLDERS, ROOT

SIDE, TILE, HEAD = 384, 128, 1200  # px, px, and bytes that no damage of ours touches
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 300000, 0, -0.5, 5000000)}
RATES = {"webp": {"webp_lossless": True}, "jpeg": {"photometric": "ycbcr"}}

DAMAGES = {
    "zeros": lambda data, at: data[:at] + bytes(512) + data[at + 512 :],
    "erased": lambda data, at: data[:at] + b"\xff" * 512 + data[at + 512 :],
    "lost": lambda data, at: data[:at] + data[at + 512 :],
    "cut": lambda data, at: data[:at],
    "zeros to the end": lambda data, at: data[:at] + bytes(len(data) - at),
}


@cache
def scene():
    """uint8 (SIDE, SIDE, 3), as busy as an aerial picture."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX)


@cache
def picture(name, *options):
    return cv2.imencode(name, scene(), options)[1].tobytes()


@cache
def tiff(compress, **kind):
    layout = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": compress, **RATES.get(compress, {})}
    size = {"width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8"}
    with MemoryFile() as file:
        with file.open(driver="GTiff", **{**size, **layout, **PLACE, **kind}) as dataset:
            dataset.write(np.moveaxis(scene(), -1, 0))
        return file.read()


PICTURES = {
    "jpg": lambda: picture(".jpg"),
    "restarts.jpg": lambda: picture(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 16),
    "png": lambda: picture(".png"),
    "deflate.tif": lambda: tiff("deflate"),
    "lzw.tif": lambda: tiff("lzw"),
    "jpeg.tif": lambda: tiff("jpeg"),
}


def places(data, count):
    return np.random.default_rng(1).integers(HEAD, len(data) - 1100, count).tolist()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", PICTURES)
def test_a_lost_sector_of_a_picture_is_an_error(tmp_path, capfd, kind, damage):
    path = tmp_path / f"a.{kind}"
    data = PICTURES[kind]()
    for at in places(data, 12):
        path.write_bytes(DAMAGES[damage](data, at))
        with pytest.raises(BadInput, match=r"a\.\S+: .*(damaged|cut short).*(copy it again|OpenCV says: .+)") as e:
            read_image(path)
        assert "\n" not in str(e.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["png", "deflate.tif"])
def test_one_bit_is_seen_where_there_are_checksums(tmp_path, kind):
    data = bytearray(PICTURES[kind]())
    for at in places(data, 40):
        data[at] ^= 16
        (tmp_path / "a").write_bytes(data)
        with pytest.raises(
            BadInput, match=r"a: a damaged PNG, the checksum|a: damaged, its compressed block \d at byte"
        ):
            read_image(tmp_path / "a")
        data[at] ^= 16


@pytest.mark.parametrize("option", ["BASELINE", "PROGRESSIVE", "OPTIMIZE", "RST_INTERVAL"])
@pytest.mark.parametrize("shape", [(1500, 1500), (1500, 1500, 3)])
def test_flat_pictures_are_whole_though_their_bytes_repeat(tmp_path, option, shape):
    flat = np.zeros(shape, np.uint8)
    flat[:700] = 90
    options = [] if option == "BASELINE" else [getattr(cv2, f"IMWRITE_JPEG_{option}"), 1]
    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".jpg", flat, options)[1].tobytes())
    assert read_image(tmp_path / "a.jpg")[0, 0].tolist() == [90, 90, 90]


def test_what_follows_a_picture_in_its_file_is_nothing(tmp_path):
    for name in (".jpg", ".png"):
        (tmp_path / "a").write_bytes(picture(name) + b"more" * 99)
        assert read_image(tmp_path / "a").shape == (SIDE, SIDE, 3)


def test_a_thumbnail_is_not_the_end_of_its_picture(tmp_path):
    inner = cv2.imencode(".jpg", scene()[:64, :64])[1].tobytes()
    data = picture(".jpg")
    thumb = b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner
    (tmp_path / "a.jpg").write_bytes(data[:2] + thumb + data[2:])
    assert read_image(tmp_path / "a.jpg").shape == (SIDE, SIDE, 3)
    (tmp_path / "a.jpg").write_bytes(data[:2] + thumb + data[2:-2])
    with pytest.raises(BadInput, match="a.jpg: a JPEG that is cut short or damaged, its end is missing; copy it again"):
        read_image(tmp_path / "a.jpg")


def read_raster(path):
    with opened(path, Reading(gsd="native")) as source:
        for window in cover(SIDE, SIDE, TILE, 0):
            source.read(*window.outer)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("compress", ["deflate", "lzw", "packbits", "jpeg", "zstd", "webp", "lzma"])
def test_a_lost_sector_of_a_geotiff_is_an_error(tmp_path, capfd, compress, damage):
    path = tmp_path / "a.tif"
    data = tiff(compress)
    for at in places(data, 6):
        path.write_bytes(DAMAGES[damage](data, at))
        with pytest.raises(BadInput, match=r"a\.tif: (damaged|cut short|can't be opened)"):
            read_raster(path)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_mask_of_a_geotiff_is_an_error(tmp_path):
    path = tmp_path / "a.tif"
    mask = np.random.default_rng(0).integers(0, 2, (SIDE, SIDE), np.uint8) * 255
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="uint8", compress="deflate", **PLACE
        ) as dataset,
    ):
        dataset.write(scene()[:, :, 0], 1)
        dataset.write_mask(mask)
    read_raster(path)
    _, tags = directories(BytesIO(path.read_bytes()))
    blocks, data = Blocks.of(tags), bytearray(path.read_bytes())
    data[blocks.starts[0] + blocks.sizes[0] // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match="a.tif: damaged, its compressed block 0 at byte"):
        read_raster(path)


def test_blocks_that_nobody_wrote_are_no_damage(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff("deflate"))
    size = {"width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8", "tiled": True, "sparse_ok": True}
    with rasterio.open(
        path, "w", driver="GTiff", blockxsize=TILE, blockysize=TILE, compress="deflate", **size, **PLACE
    ):
        pass
    with opened(path, Reading(gsd="native")) as source:
        assert source.read(*cover(SIDE, SIDE, TILE, 0)[4].outer)[0].max() == 0


@pytest.mark.parametrize("kind", [{}, {"BIGTIFF": "YES"}, {"interleave": "band"}, {"tiled": False, "blockysize": 7}])
def test_blocks_are_where_gdal_has_them(tmp_path, kind):
    (tmp_path / "a.tif").write_bytes(tiff("deflate", **kind))
    with rasterio.open(tmp_path / "a.tif") as dataset, (tmp_path / "a.tif").open("rb") as file:
        blocks = Blocks.of(next(directories(file)))
        for row, col in [(0, 0), (200, 300), (SIDE - 1, SIDE - 1)]:
            y, x = row // blocks.high, col // blocks.wide
            found = [*blocks.touching(slice(row, row + 1), slice(col, col + 1))]
            bands = [1, 2, 3] if "interleave" in kind else [1]
            wanted = [int(dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", band)) for band in bands]
            assert [blocks.starts[i] for i in found] == wanted


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_directory_ends_and_takes_no_memory(tmp_path, seed):
    rng, data = np.random.default_rng(seed), bytearray(tiff("deflate"))
    for at in rng.integers(4, 400, 6):
        data[at] = rng.choice([0, 1, 255])
    for tags in directories(BytesIO(data)):
        Blocks.of(tags)


def test_files_become_pixels_in_one_place():
    """cv2.imread and imdecode, which give damaged pixels, are called in decoding.py alone, but for bytes of our own."""
    found = set()
    for path in (
        file for folder in FOLDERS.values() for file in (ROOT / folder).rglob("*.py") if "peers" not in file.parts
    ):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        if names & {"imread", "imdecode", "imreadmulti", "imdecodemulti"}:
            found.add(str(path.relative_to(ROOT)))
    assert found == {"imagery/decoding.py", "scenes/camera.py"}


def test_lines_of_others_are_passed_on(capfd):
    with captured_stderr(lambda line: line.startswith("mine")) as said:
        os.write(2, b"mine: one\nof another\nmine: two\n")
    assert said == ["mine: one", "mine: two"]
    assert capfd.readouterr().err == "of another\n"


def test_lines_are_passed_on_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError), captured_stderr(lambda line: False):
        os.write(2, b"of another\n")
        _ = 1 / 0
    assert capfd.readouterr().err == "of another\n"


def test_threads_hear_what_is_theirs(tmp_path, capfd):
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(picture(".jpg"))
    data = picture(".jpg")
    bad.write_bytes(DAMAGES["lost"](data, len(data) // 2))
    heard = {good: [], bad: []}

    def read(path):
        for _ in range(20):
            try:
                heard[path].append(read_image(path).shape)
            except BadInput:
                heard[path].append("damaged")

    threads = [threading.Thread(target=read, args=[path]) for path in (good, bad) * 2]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (set(heard[good]), set(heard[bad])) == ({(SIDE, SIDE, 3)}, {"damaged"})
    assert capfd.readouterr().err == ""


CLOSED = """
import os, sys
os.close(2)
from pathlib import Path
from dlink.imagery.images import read_image
for path in map(Path, sys.argv[1:]):
    try:
        print(read_image(path).shape)
    except ValueError as e:
        print(e)
try:
    os.fstat(2)
except OSError:
    print("still closed")
"""


def test_a_process_without_stderr_hears_as_well(tmp_path):
    data = picture(".jpg")
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "b.jpg").write_bytes(DAMAGES["lost"](data, len(data) // 2))
    command = [sys.executable, "-c", CLOSED, tmp_path / "a.jpg", tmp_path / "b.jpg"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == f"({SIDE}, {SIDE}, 3)"
    assert "b.jpg: damaged, Corrupt JPEG data" in said[1]
    assert said[2] == "still closed"
