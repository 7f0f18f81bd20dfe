"""What is known to be empty costs little, and large maps do not open all blocks for each."""

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.windows import Window

from dlink.imagery.reading import Reading
from dlink.imagery.source import Source, opened
from dlink.imagery.tiff import Checker
from dlink.imagery.warped import Warped
from dlink.maps.job.mosaic_file import around
from dlink.maps.job.store import Store
from dlink.maps.job.tasks import roads_task
from tests.maps.job.scenes import GRID, ZONE, blocks_of, job_of, made, options, plan_of, read, scene, write

pytestmark = pytest.mark.usefixtures("closed")


def sparse(path, side=1024, transform=GRID):
    """A raster whose blocks of 64 px were never written, but for the first."""
    form = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8", "sparse_ok": True}
    form |= {"tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(path, "w", **form, crs=ZONE, transform=transform) as file:
        file.write(scene((64, 64)), window=Window(0, 0, 64, 64))
    return path


@pytest.mark.parametrize("down", [-0.5, 0.5], ids=["plain", "warped"])
def test_blocks_that_were_never_written_are_not_read(model, tmp_path, monkeypatch, down):
    kind, reads = (Source, []) if down < 0 else (Warped, [])
    path = sparse(tmp_path / "a.tif", transform=Affine(0.5, 0, 718_000, 0, down, 5_400_000))
    plan = plan_of(model, path, how=options(windows=8))
    job = job_of(tmp_path, plan)
    samples = kind.samples
    monkeypatch.setattr(kind, "samples", lambda self, *box: reads.append(box) or samples(self, *box))
    read_of = {}
    for block in plan.blocks:
        assert not roads_task(job, block).error
        read_of[block] = len(reads)
        reads.clear()
    assert [block for block, count in read_of.items() if count] == [0 if down < 0 else plan.blocks[-plan.across]]


def test_an_empty_block_is_small_and_has_no_data(model, tmp_path):
    plan = plan_of(model, sparse(tmp_path / "a.tif"), how=options(windows=8))
    job = job_of(tmp_path, plan)
    for block in plan.blocks:
        roads_task(job, block)
    last = tmp_path / "blocks" / f"{plan.name(plan.blocks[-1])}.tif"
    pixels, valid = read(last)
    assert not pixels.any() and not valid.any()
    assert last.stat().st_size < 4000


def test_the_written_blocks_of_a_tiff_are_listed_once(tmp_path):
    path = sparse(tmp_path / "a.tif")
    with path.open("rb") as file:
        checker = Checker(path, file)
        assert checker.there is checker.there


def test_a_part_of_a_sparse_raster_is_empty_where_no_block_of_it_was_written(tmp_path):
    with opened(sparse(tmp_path / "a.tif"), Reading(gsd="native")) as source:
        for box, empty in (((0, 64), False), ((63, 65), False), ((64, 128), True), ((1000, 1024), True)):
            assert source.is_empty(slice(*box), slice(*box)) is empty


def test_the_lines_of_a_block_open_the_blocks_around_it_alone(model, tmp_path):
    plan = plan_of(model, write(tmp_path / "a.tif", scene((600, 600))), how=options(windows=1))
    for block in plan.blocks[:: len(plan.blocks) // 7]:
        rows, cols = plan.core(block)
        near = {
            other
            for other in plan.blocks
            for r, c in [plan.core(other)]
            if r.start < rows.stop + 50 and r.stop > rows.start - 50
            if c.start < cols.stop + 50 and c.stop > cols.start - 50
        }
        assert set(plan.around(block, 50)) == near
        text = around(plan, Store(str(tmp_path), plan.mark), block, 50)
        assert text.count("<SimpleSource>") == 3 * len(near)


def test_a_sparse_map_is_that_of_the_same_raster_with_a_mask(model, tmp_path):
    sparse(tmp_path / "a.tif", 256)
    image, valid = np.zeros((3, 256, 256), np.uint8), np.zeros((256, 256), np.uint8)
    image[:, :64, :64], valid[:64, :64] = scene((64, 64)), 255
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(tmp_path / "b.tif", image)
        with rasterio.open(tmp_path / "b.tif", "r+") as file:
            file.write_mask(valid)
    for name in "ab":
        made(tmp_path / f"map_{name}", model, [tmp_path / f"{name}.tif"])
    (one, there), (other, too) = (read(tmp_path / f"map_{name}" / "roads.tif") for name in "ab")
    np.testing.assert_array_equal(there, too)
    np.testing.assert_array_equal(one, other)
    assert len(blocks_of(tmp_path / "map_a")) == len(blocks_of(tmp_path / "map_b"))
