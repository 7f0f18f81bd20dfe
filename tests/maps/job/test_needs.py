"""What a map needs of a disk: room, which is said, and that what has its name is there after a power cut."""

import os
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from dlink.maps.job import needs
from dlink.maps.job.needs import check_disk, size
from dlink.maps.job.store import Store
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing
from tests.maps.job.scenes import roads, scene, write
from tests.maps.job.test_replaced import plan_of


@pytest.fixture
def plan(tmp_path):
    return plan_of(roads(tmp_path / "roads.onnx"), write(tmp_path / "a.tif", scene((200, 200))))


def test_a_disk_that_is_a_little_too_small_is_said_in_figures_that_differ(plan, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    need = needs.pixels(plan, 100) * needs.PIXEL * needs.PACKED
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: usage(need - 10_000))
    with pytest.raises(BadInput) as e:
        check_disk(plan, Store(str(tmp_path), plan.mark), 100)
    assert (
        str(e.value)
        == f"{tmp_path}: needs {size(need)} or more, 10 kB more than the {size(need - 10_000)} that are free; make room"
    )


def test_sizes_are_said_in_words_that_differ():
    assert [size(n) for n in (900, 10_000, 2_345_678, 23_456_789, 3_400_000_000)] == [
        "1 kB", "10 kB", "2.3 MB", "23 MB", "3.4 GB",
    ]  # fmt: skip


def name_of(file):
    return Path(f"/proc/self/fd/{file}").readlink().name


def test_blocks_and_the_plan_are_on_the_disk_before_they_get_their_names(plan, tmp_path, monkeypatch):
    done, fsync, rename = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(name_of(file)) or fsync(file))
    monkeypatch.setattr(Path, "replace", lambda self, to: done.append(f"{self.name} -> {to.name}") or rename(self, to))
    store, pid = Store(str(tmp_path), plan.mark), os.getpid()
    store.put_roads("b", plan.grid, (slice(0, 9), slice(0, 9)), np.zeros((2, 9, 9), np.uint8), np.ones((9, 9), bool))
    store.put_lines("b", {})
    plan.write(tmp_path)
    expected = []
    for name in ("b.tif", "b.npz", "plan.json"):
        part = f".{Path(name).stem}.{pid}{Path(name).suffix}"
        expected += [part, f"{part} -> {name}"]
    assert done == expected
    with replacing(tmp_path / "other") as part:
        part.write_bytes(b"")
    assert len(done) == len(expected) + 1  # whatever need not last is not waited for
