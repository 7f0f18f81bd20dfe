"""A map that is interrupted in any way is finished by the next run: nothing missing, nothing doubled, nobody left."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from dlink.maps.job.run import Where, progress_of
from tests.maps.job.processes import MAP, PATIENCE, alive, children, run, start, wait_for, wait_for_blocks
from tests.maps.job.scenes import blocks_of, cut, leftovers, made, options, read, roads, scene

SMALL = ("--windows", "1")  # blocks of 32 px: many short tasks


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A folder with a model, rasters, and their map."""
    folder = tmp_path_factory.mktemp("ready")
    model = roads(folder / "roads.onnx")
    cut(folder / "parts", scene((200, 320)))
    made(folder / "map", model, [folder / "parts"], options(windows=1))
    return folder


def begun(ready, folder, *more):
    """A map in a process of its own."""
    return start(ready / "roads.onnx", ready / "parts", "-o", folder, *SMALL, "--workers", 2, *more)


def same(ready, folder):
    assert blocks_of(folder) == blocks_of(ready / "map")
    assert (read(folder / "roads.tif")[0] == read(ready / "map" / "roads.tif")[0]).all()
    assert leftovers(folder) == []


def test_a_killed_worker_is_replaced(ready, tmp_path):
    process = begun(ready, tmp_path / "map")
    wait_for_blocks(tmp_path / "map", 5)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    same(ready, tmp_path / "map")


@pytest.mark.parametrize("when", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_run_that_ends_leaves_no_worker_and_is_continued(ready, tmp_path, when):
    folder = tmp_path / "map"
    process = begun(ready, folder)
    wait_for_blocks(folder, 5)
    workers = children(process.pid)
    assert len(workers) == 2
    process.send_signal(when)
    _, errors = process.communicate(timeout=PATIENCE)
    wait_for(lambda: not any(alive(pid) for pid in workers), "the workers' end")
    done = progress_of(Where(folder=folder))
    assert 5 <= done.roads < done.all and not done.running
    if when == signal.SIGINT:
        assert process.returncode == 130
        assert f"stopped; {done.roads} of {done.all} blocks done: dlink-map -o {folder} goes on" in errors
    made(folder, None, [], None)
    same(ready, folder)


def test_a_second_run_in_the_folder_is_refused_and_its_status_is_told(ready, tmp_path):
    folder = tmp_path / "map"
    process = begun(ready, folder)
    wait_for_blocks(folder, 3)
    process.send_signal(signal.SIGSTOP)  # it holds the folder for as long as the other one takes
    try:
        assert progress_of(Where(folder=folder)).running
        other = begun(ready, folder)
        _, errors = other.communicate(timeout=PATIENCE)
        assert other.returncode == 1
        assert "another dlink-map works there" in errors
    finally:
        process.kill()
        process.communicate()


def test_a_raster_that_vanishes_is_named_and_the_rest_is_done(ready, tmp_path):
    shutil.copytree(ready / "parts", tmp_path / "parts")
    folder, lost = tmp_path / "map", tmp_path / "parts" / "150_150.tif"
    args = [ready / "roads.onnx", tmp_path / "parts", "-o", folder, *SMALL, "--workers", 1]
    process = start(*args)
    wait_for_blocks(folder, 1)
    lost.rename(tmp_path / "lost.tif")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert f"blocks failed: {lost}: No such file or directory; it is part of the map: bring it back" in errors
    done = progress_of(Where(folder=folder))
    assert 0 < done.roads < done.all
    assert str(lost) in run(*args, code=1)
    (tmp_path / "lost.tif").rename(lost)
    run(*args)
    assert (read(folder / "roads.tif")[0] == read(ready / "map" / "roads.tif")[0]).all()


FULL = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))  # as a full disk: writes past it fail
{MAP}
"""


def test_a_full_disk_is_said_and_the_next_run_goes_on(ready, tmp_path):
    folder = tmp_path / "map"
    args = [str(ready / "roads.onnx"), str(ready / "parts"), "-o", str(folder), "--windows", "40"]
    process = subprocess.run([sys.executable, "-c", FULL, *args], capture_output=True, text=True, timeout=PATIENCE)
    assert process.returncode == 1
    assert (
        f"a block failed: {folder / 'blocks' / '0000_0000.tif'}: can't be written, is the disk full?" in process.stderr
    )
    assert "_tiff" not in process.stderr  # GDAL's own words
    assert blocks_of(folder) == {}
    run(*args)
    assert (read(folder / "roads.tif")[0] == read(ready / "map" / "roads.tif")[0]).all()
    assert leftovers(folder) == []
