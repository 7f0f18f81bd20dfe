"""A raster that is replaced, in any of its files and at any time, never leaves a map that is half old and half new."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rasterio.shutil import copy

from dlink.cli.map import map as command
from dlink.imagery.affine import shifted
from dlink.maps.job.mosaic import Mosaic
from dlink.maps.job.plan import Plan, changed
from dlink.maps.job.renewing import KEEP, REDO, renewed
from dlink.maps.job.run import Where
from dlink.maps.job.tasks import Job, roads_task
from dlink.maps.job.watched import watched_files
from dlink.runtime.errors import BadInput
from tests.maps.job.scenes import BLOCK, GRID, blocks_of, job_of, made, plan_of, read, scene, write

pytestmark = pytest.mark.usefixtures("closed")


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def deep(path, times, transform=GRID):
    """A raster of 16 bits."""
    return write(path, scene((100, 150)).astype(np.uint16) * times, transform=transform)


def vrt(path, name):
    copy(str(name), str(path), driver="VRT")
    return path


def test_the_range_of_16_bits_is_found_again_for_a_raster_that_was_replaced_before_its_blocks(model, tmp_path):
    plan = plan_of(model, deep(tmp_path / "a.tif", 40))
    deep(tmp_path / "a.tif", 4)
    new = renewed(plan, set())
    assert new.plan.stretch == plan_of(model, tmp_path / "a.tif").stretch != plan.stretch


def test_a_new_range_is_refused_beside_blocks_of_the_old_one_and_redo_makes_all_of_them_again(model, tmp_path):
    far = shifted(GRID, 2000, 2000)
    plan = plan_of(model, deep(tmp_path / "a.tif", 40), deep(tmp_path / "b.tif", 40, far))
    done = plan.touching(plan.sources[1])
    deep(tmp_path / "a.tif", 4)
    with pytest.raises(BadInput, match="the range of the samples of all rasters .* --replaced redo computes all again"):
        renewed(plan, done)
    new = renewed(plan, done, REDO)
    assert new.again == done
    assert new.plan.stretch != plan.stretch
    kept = renewed(plan, done, KEEP)
    assert (kept.again, kept.plan.stretch, kept.plan.mark) == (set(), plan.stretch, plan.mark)


def test_blocks_are_not_made_again_while_another_raster_of_them_is_gone(model, tmp_path):
    plan = plan_of(model, write(tmp_path / "a.tif", scene((100, 150))), write(tmp_path / "b.tif", scene((100, 150), 5)))
    done = set(plan.blocks)
    write(tmp_path / "a.tif", scene((100, 150), 6))
    (tmp_path / "b.tif").unlink()
    with pytest.raises(BadInput, match=r"b\.tif: No such file or directory; it is part of the map: bring it back"):
        renewed(plan, done, REDO)
    assert renewed(plan, done, KEEP).again == set()


def test_a_file_of_the_internet_is_not_asked_for_its_files(tmp_path):
    class Dataset:
        @property
        def files(self):
            raise AssertionError("asked over the network")

    assert watched_files(Path("/vsicurl/https://host/a.tif"), Dataset()) == ()


def test_a_raster_that_is_written_over_while_it_is_read_fails_the_block(model, tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", scene((200, 200)))
    job = job_of(tmp_path, plan_of(model, path))
    assert not roads_task(job, 0).error
    other, laid = write(tmp_path / "other.tif", scene((200, 200), 5)).read_bytes(), Mosaic.laid

    def meanwhile(self, rows, cols):
        found = laid(self, rows, cols)
        with path.open("r+b") as file:  # as cp does
            file.write(other)
        return found

    monkeypatch.setattr(Mosaic, "laid", meanwhile)
    done = roads_task(job, 1)
    assert f"{path}: has changed since the map was planned; run this again" in done.error
    assert sorted(blocks_of(tmp_path)) == ["0000_0000.tif"]


def test_a_worker_of_a_cluster_notices_a_plan_that_was_renewed(model, tmp_path):
    path = write(tmp_path / "a.tif", scene((200, 200)))
    plan = plan_of(model, path)
    job = job_of(tmp_path, plan)
    assert not roads_task(job, 0).error
    write(path, scene((200, 200), 5))
    new = renewed(plan, set()).plan
    new.write(tmp_path)
    again = Job(job.folder, job.store, new.mark, 1, new.state)
    assert new.mark == plan.mark
    assert not roads_task(again, 1).error


@pytest.mark.parametrize("nested", [False, True])
def test_what_a_vrt_points_to_is_watched(model, tmp_path, nested):
    inner = write(tmp_path / "a.tif", scene((100, 150)))
    path = vrt(tmp_path / "a.vrt", inner)
    path = vrt(tmp_path / "outer.vrt", path) if nested else path
    [source] = plan_of(model, path).sources
    assert changed(source) == ""
    write(inner, scene((100, 150), 9))
    assert changed(source) == f"{path}: its file {inner} has changed since the map was planned; run this again"
    inner.unlink()
    assert changed(source) == (
        f"{path}: its file {inner} is not there; it is part of the map: bring it back, then run this again"
    )


def test_a_mask_and_a_place_beside_a_raster_are_watched_and_statistics_are_not(model, tmp_path):
    path = write(tmp_path / "a.tif", scene((100, 150)))
    [source] = plan_of(model, path).sources
    mean = "<Metadata><MDI key='STATISTICS_MEAN'>9</MDI></Metadata>"
    stats = f"<PAMDataset><PAMRasterBand band='1'>{mean}{{}}</PAMRasterBand></PAMDataset>"
    aux = Path(f"{path}.aux.xml")
    aux.write_text(stats.format(""))
    assert changed(source) == ""
    aux.write_text(stats.format("<NoDataValue>9</NoDataValue>"))
    assert "has changed since the map was planned" in changed(source)
    aux.unlink()
    Path(f"{path}.ovr").write_bytes(b"")
    assert changed(source) == ""
    Path(f"{path}.msk").write_bytes(b"")
    assert f"its file {path}.msk has changed" in changed(source)


def test_a_world_file_is_watched(model, tmp_path):
    image = scene((100, 150))
    write(tmp_path / "there.tif", image)
    copy(str(tmp_path / "there.tif"), str(tmp_path / "a.png"), driver="PNG", worldfile="YES")
    [world] = tmp_path.glob("a.w*")
    [source] = plan_of(model, tmp_path / "a.png").sources
    world.write_text(world.read_text().replace("718000.25", "718100.25"))
    assert f"its file {world} has changed" in changed(source)


def test_an_archive_and_a_name_that_is_not_utf_8_are_watched(model, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.tif"))
    write(tmp_path / "a.tif", scene((100, 150))).rename(odd)
    write(tmp_path / "a.tif", scene((100, 150)))
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path, "a.tif")
    inside = f"/vsizip/{tmp_path}/a.zip/a.tif"
    for name, file in ((odd, odd), (inside, tmp_path / "a.zip")):
        [source] = plan_of(model, name).sources
        assert changed(source) == ""
        os.utime(file, ns=(1, 1))
        assert "has changed since the map was planned" in changed(source)


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """A folder with a raster and its map."""
    folder = tmp_path_factory.mktemp("finished")
    write(folder / "a.tif", scene((200, 200)))
    made(folder / "map", model, [folder / "a.tif"])
    return folder


@pytest.fixture
def replaced(finished, tmp_path):
    """Its map, while its raster is replaced by another one."""
    shutil.copytree(finished / "map", tmp_path / "map")
    raster = finished / "a.tif"
    raster.rename(finished / "before.tif")
    write(raster, scene((200, 200), 4))
    yield tmp_path / "map"
    (finished / "before.tif").replace(raster)


def test_a_finished_map_of_a_raster_that_was_replaced_is_refused_with_the_way_out(replaced):
    done = call("-o", replaced, "--format", "fgb")
    assert done.exit_code == 1
    assert "blocks of it are done: --replaced redo computes them again, --replaced keep keeps them" in done.stderr
    assert not (replaced / "roads.fgb").exists()


def test_redo_makes_the_map_of_the_raster_as_it_is_now(replaced, finished, model, tmp_path):
    done = call("-o", replaced, "--replaced", "redo")
    assert done.exit_code == 0, done.output
    made(tmp_path / "new", model, [finished / "a.tif"])
    np.testing.assert_array_equal(read(replaced / "roads.tif")[0], read(tmp_path / "new" / "roads.tif")[0])
    assert call("-o", replaced, "--status").stdout.startswith(f"{replaced}: finished")
    assert call("-o", replaced).exit_code == 0


def test_keep_keeps_the_blocks_and_is_not_asked_again(replaced):
    before = blocks_of(replaced)
    done = call("-o", replaced, "--replaced", "keep")
    assert done.exit_code == 0, done.output
    assert "of it stay as they are" in done.stderr
    assert call("-o", replaced).exit_code == 0
    assert blocks_of(replaced) == before


def test_a_raster_that_is_gone_from_a_finished_map_is_said(replaced, finished):
    (finished / "a.tif").unlink()
    done = call("-o", replaced, "--format", "fgb")
    assert done.exit_code == 0, done.output
    assert "a.tif: is gone since the map was planned; its blocks are done, and stay as they are" in done.stderr


def test_a_plan_of_the_last_version_says_what_to_do(finished, tmp_path):
    shutil.copytree(finished / "map", tmp_path / "map")
    path = tmp_path / "map" / "plan.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(BadInput, match=r"a plan of another version, dlink \S+; finish it with that, or choose a new"):
        Plan.read(tmp_path / "map")


def test_an_option_that_is_refused_is_not_remembered(finished, tmp_path):
    shutil.copytree(finished / "map", tmp_path / "map")
    before = (tmp_path / "map" / "options.json").read_text()
    assert "is of polygons" in call("-o", tmp_path / "map", "--square").stderr
    assert (tmp_path / "map" / "options.json").read_text() == before
    assert call("-o", tmp_path / "map").exit_code == 0


def test_only_two_words_say_what_becomes_of_replaced_rasters(tmp_path):
    with pytest.raises(BadInput, match="--replaced maybe: expected redo or keep"):
        Where(folder=tmp_path, replaced="maybe")


def test_the_full_command_does_what_it_says_and_the_folder_alone_what_the_last_run_did(finished, model, tmp_path):
    folder = tmp_path / "map"
    shutil.copytree(finished / "map", folder)

    def bridge(*args):
        done = call(*args)
        assert done.exit_code == 0, done.output
        return json.loads((folder / "options.json").read_text())["bridge"]

    whole = (model, finished / "a.tif", "-o", folder, "--windows", BLOCK.windows)
    assert bridge("-o", folder, "--bridge", 15) == 15
    assert bridge("-o", folder) == 15
    assert bridge(*whole) == 0
    assert bridge("-o", folder, "--bridge", 15) == 15
    assert bridge("-o", folder, "--bridge", 0) == 0


def test_an_option_of_the_plan_beside_the_folder_alone_is_compared_by_itself(finished, tmp_path):
    folder = tmp_path / "map"
    shutil.copytree(finished / "map", folder)
    assert call("-o", folder, "--windows", BLOCK.windows).exit_code == 0
    done = call("-o", folder, "--widest", 50, "--views", 8)
    assert done.exit_code == 1
    assert "is another map, with another --views; choose" in done.stderr
