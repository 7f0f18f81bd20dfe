import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from dlink.cli.segment import run as segment_all
from dlink.cli.segment import segment, workers
from dlink.imagery.images import write_image
from dlink.imagery.jobs import OutputOptions, find_jobs
from dlink.runtime import HostBackend, Segmenter, Spec
from dlink.runtime.slotted import Slotted
from tests.support.models import red, write_conv, write_pointwise

PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 5, 0, -2, 9)}


@pytest.fixture
def model(tmp_path):
    """Its probability at a pixel is `red` of it."""
    return write_pointwise(tmp_path / "red.onnx", Spec(tile=64, views=(0,)))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)


@pytest.fixture
def run(model):
    return lambda *arguments: CliRunner().invoke(segment, [*map(str, [model, *arguments])])


def write_geotiff(path, image):
    bands = np.moveaxis(image, -1, 0)
    size = {"count": len(bands), "height": image.shape[0], "width": image.shape[1], "dtype": "uint8"}
    with rasterio.open(path, "w", **size, **PLACE) as file:
        file.write(bands)


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side):
    """A PNG whose header claims a square of a side and whose data is a few bytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def test_an_image_becomes_a_mask(run, tmp_path, image):
    write_image(tmp_path / "a.png", image)
    result = run(tmp_path / "a.png", "-o", tmp_path / "m.png")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'm.png'}\n")
    unknown = "does not say its ground resolution and is read as it is, not at 0.5 m a pixel"
    assert result.stderr == f"note: {tmp_path / 'a.png'}: {unknown}\n"
    np.testing.assert_array_equal(read(tmp_path / "m.png"), np.where(red(image) > 0.5, 255, 0))


def test_a_folder_becomes_a_folder(run, tmp_path, image):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/1_sat.png", image)
    write_image(tmp_path / "in/2_sat.png", image)
    write_geotiff(tmp_path / "in/3.tif", image)
    assert run(tmp_path / "in", "-o", tmp_path / "new/out").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "new/out").iterdir()) == ["1_mask.png", "2_mask.png", "3_mask.tif"]


def test_a_geotiff_keeps_its_grid(run, tmp_path, image):
    write_geotiff(tmp_path / "a.tif", image)
    assert run(tmp_path / "a.tif", "-o", tmp_path / "m.tif", "--gsd", "native").exit_code == 0
    with rasterio.open(tmp_path / "m.tif") as file:
        assert (file.crs, file.transform) == (PLACE["crs"], PLACE["transform"])
        np.testing.assert_array_equal(file.read(1), np.where(red(image) > 0.5, 255, 0))


def test_pictures_side_by_side_get_the_masks_that_they_get_alone(run, tmp_path, image):
    pictures = [tmp_path / "in" / f"{name}.png" for name in "abcdef"]
    pictures[0].parent.mkdir()
    for i, path in enumerate(pictures):
        write_image(path, np.roll(image, 20 * i, 0)[: 40 + 10 * i])
    pictures[2].write_bytes(b"")
    write_geotiff(tmp_path / "in/d.tif", image)
    result = run(tmp_path / "in", "-o", tmp_path / "out", "--gsd", "native")
    names = ["a_mask.png", "b_mask.png", "d_png_mask.png", "d_tif_mask.tif", "e_mask.png", "f_mask.png"]
    assert result.stdout.splitlines() == [str(tmp_path / "out" / name) for name in names]
    assert f"Error: {pictures[2]}: an empty file, not a picture" in result.stderr
    for path in (pictures[0], pictures[1], pictures[4], pictures[5]):
        assert run(path, "-o", tmp_path / "alone.png").exit_code == 0
        np.testing.assert_array_equal(read(tmp_path / "out" / f"{path.stem}_mask.png"), read(tmp_path / "alone.png"))


def test_a_picture_of_one_tile_is_begun_before_the_one_ahead_of_it_is_done(tmp_path):
    both = threading.Barrier(2)

    def net(x):
        both.wait(30)  # neither ends before the other has begun
        return (x[:, 2] > 0).astype(np.float32)

    spec = Spec(tile=64, views=(0,))
    how = OutputOptions()
    for value in (0, 255):
        write_image(tmp_path / f"{value}.png", np.full((64, 64, 3), value, np.uint8))
    jobs = find_jobs([tmp_path / "0.png", tmp_path / "255.png"], tmp_path / "out", how)
    with Segmenter(Slotted([HostBackend(net, spec) for _ in range(2)])) as model:
        assert segment_all(jobs, workers(jobs), model, how) == 0
    assert [int(read(job.out).max()) for job in jobs] == [0, 255]


def test_options_reach_the_model(run, tmp_path, image):
    write_image(tmp_path / "a.png", image)
    options = ["--threshold", 0.8, "--views", 8, "--halo", 0, "--threads", 1]
    assert run(tmp_path / "a.png", "-o", tmp_path / "m.png", *options).exit_code == 0
    np.testing.assert_array_equal(read(tmp_path / "m.png"), np.where(red(image) > 0.8, 255, 0))


def test_probabilities_and_overlays_are_written(run, tmp_path, image):
    write_image(tmp_path / "1_sat.png", image)
    assert run(tmp_path / "1_sat.png", "-o", tmp_path / "out", "--probability", "--overlay").exit_code == 0
    np.testing.assert_allclose(read(tmp_path / "out/1_prob.png") / 65535, red(image), atol=1e-5)
    assert read(tmp_path / "out/1_overlay.jpg").shape == image.shape


def test_a_large_picture_speaks_from_the_beginning(run, tmp_path, image, monkeypatch):
    monkeypatch.setattr("dlink.imagery.pictures.LARGE", 1)
    write_image(tmp_path / "a.jpg", image)
    write_image(tmp_path / "b.jpg", image)
    height, width = image.shape[:2]
    lines = run(tmp_path / "a.jpg", "-o", tmp_path / "m.png").stderr.splitlines()
    assert lines[0] == f"segment reading {width} x {height} px 0 s"
    lines = run(tmp_path / "a.jpg", tmp_path / "b.jpg", "-o", tmp_path / "out").stderr.splitlines()
    assert any(line.startswith(f"segment 1/2 images, b.jpg: reading {width} x {height} px") for line in lines)


def test_an_existing_output_is_replaced(run, tmp_path, image):
    write_image(tmp_path / "a.png", image)
    (tmp_path / "m.png").write_text("old")
    assert run(tmp_path / "a.png", "-o", tmp_path / "m.png").exit_code == 0
    assert read(tmp_path / "m.png").shape == image.shape[:2]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.png", b"", "an empty file, not a picture"),
        ("empty.tif", b"", "an empty file, not a picture"),
        ("text.jpg", b"roads are long", "no picture, or a damaged one"),
        ("short.png", png(40)[:-12], "a PNG that is cut short"),
        (
            "short.jpg",
            cv2.imencode(".jpg", np.zeros((99, 99, 3), np.uint8))[1].tobytes()[:-60],
            "a JPEG that is cut short",
        ),
        (
            "short.tif",
            cv2.imencode(".tif", np.eye(99, dtype=np.uint8))[1].tobytes()[:-60],
            "no picture, or a damaged one",
        ),
        ("huge.png", png(50000), "can't be decoded as a picture; OpenCV says"),
    ],
)
def test_a_bad_picture_is_one_line_that_names_it(run, tmp_path, capfd, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    result = run(path, "-o", tmp_path / "out")
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if not line.startswith("segment reading 50000 x 50000 px")]
    assert line.startswith(f"Error: {path}: {message}")
    assert not capfd.readouterr().err  # of the libraries' own
    assert not (tmp_path / "out").exists()


def test_a_bad_picture_among_others_is_told_and_the_rest_are_done(run, tmp_path, image):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "c.png"):
        write_image(tmp_path / "in" / name, image)
    (tmp_path / "in/b.png").write_bytes(b"")
    result = run(tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert f"Error: {tmp_path / 'in/b.png'}: an empty file, not a picture\n" in result.output
    assert result.output.endswith("Error: 1 of 3 images failed; the others are done\n")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_mask.png", "c_mask.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "-o", "out"], "none: no such file or folder"),
        (["empty", "-o", "out"], "empty: no pictures in it"),
        (["a.png", "-o", "red.onnx"], "red.onnx: a file; one image of .*a.png need"),
        (["a.png", "-o", "red.onnx/out"], "red.onnx/out: Not a directory"),
        (["a.png", "-o", "m.png", "--views", "3"], "views must be 8, 4, 1 or adaptive, got 3"),
        (["a.png", "-o", "m.png", "--halo", "32"], "a halo of 32 px leaves nothing of a 64 px tile"),
        (["a.png", "-o", "m.png", "--threshold", "1"], r"threshold must be in \[0, 1\), got 1"),
        (["a.png", "-o", "m.png", "--threads", "0"], "threads must be a whole number from 1 to 1024, got 0"),
    ],
)
def test_a_bad_call_is_one_line(run, tmp_path, monkeypatch, image, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_image(Path("a.png"), image)
    Path("empty").mkdir()
    result = run(*arguments)
    assert result.exit_code == 1
    [line] = [line for line in result.output.splitlines() if not line.startswith("note: ")]
    assert re.match(f"Error: .*{message}", line)


@pytest.fixture
def run_plainly(model):
    """`run` by a process that may not read everything, as root's may."""
    powers = []
    if os.name != "posix":
        pytest.skip("needs POSIX: it has files that their owner may not read")
    if os.geteuid() == 0:
        if not (setpriv := shutil.which("setpriv")):
            pytest.skip("needs another user than root: or apt-get install util-linux")
        powers = [setpriv, "--bounding-set", "-all", "--inh-caps", "-all"]
    command = [*powers, sys.executable, "-c", "from dlink.cli.segment import segment; segment()", model]
    return lambda *arguments: subprocess.run([*command, *arguments], capture_output=True, text=True)


def test_an_unreadable_folder_is_one_line(run_plainly, tmp_path):
    (tmp_path / "in").mkdir(mode=0)
    done = run_plainly(tmp_path / "in", "-o", tmp_path / "out")
    assert (done.returncode, done.stderr) == (1, f"Error: {tmp_path / 'in'}: Permission denied\n")


def test_an_unreadable_picture_does_not_stop_the_others(run_plainly, tmp_path, image):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name, image)
    (tmp_path / "in" / "a.png").chmod(0)
    done = run_plainly(tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert f"Error: {tmp_path / 'in' / 'a.png'}: Permission denied\n" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b_mask.png"]


def test_a_geotiff_without_rasterio_says_what_to_install(run, tmp_path, monkeypatch, image):
    write_geotiff(tmp_path / "a.tif", image)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.delitem(sys.modules, "dlink.imagery.raster", raising=False)
    result = run(tmp_path / "a.tif", "-o", tmp_path / "m.tif")
    assert result.exit_code == 1
    assert result.output.endswith("a.tif: to keep its georeference, pip install 'dlink[geo]'\n")


def test_a_plain_tiff_needs_no_rasterio(run, tmp_path, monkeypatch, image):
    write_image(tmp_path / "a.tif", image)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.delitem(sys.modules, "dlink.imagery.raster", raising=False)
    assert run(tmp_path / "a.tif", "-o", tmp_path / "m.png").exit_code == 0


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)  # as a full disk: writes past it fail
from dlink.cli.segment import segment
segment(sys.argv[2:])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX: it limits the size of files")
@pytest.mark.parametrize(("name", "limit"), [("a.png", 500), ("a.tif", 2000), ("a.tif", 7000)])
def test_a_full_disk_leaves_the_old_output_and_nothing_else(model, tmp_path, image, name, limit):
    write_image(tmp_path / "a.png", np.tile(image, (3, 2, 1)))
    write_geotiff(tmp_path / "a.tif", np.tile(image, (3, 2, 1)))
    out = tmp_path / "out" / f"m{Path(name).suffix}"
    out.parent.mkdir()
    out.write_text("old")
    command = [sys.executable, "-c", FULL, limit, model, tmp_path / name, "-o", out]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: {out}: ")
    assert [p.read_text() for p in out.parent.iterdir()] == ["old"]


def test_a_network_that_gives_no_probabilities_is_one_line_with_the_picture_and_the_tile(tmp_path, image):
    model = write_conv(tmp_path / "nan.onnx", Spec(tile=64), np.full((1, 1), np.nan))
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_image(tmp_path / "in" / f"{name}.png", image)
    result = CliRunner().invoke(segment, [*map(str, [model, tmp_path / "in", "-o", tmp_path / "out"])])
    errors = [line for line in result.stderr.splitlines() if "the network gives values that are not prob" in line]
    assert result.exit_code == 1
    assert [line.partition(" to 64, columns 0 to 64: ")[0] for line in errors] == [
        f"Error: {tmp_path}/in/{name}.png: the tile at rows 0" for name in "ab"
    ]
    assert not [p for p in tmp_path.rglob("out/*") if p.is_file()]
