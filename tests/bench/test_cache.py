"""Files that are made on the way: each has a path by its content, and is made once."""

import shutil

import pytest

from dlink.bench import cache
from dlink.bench.cache import export_path, int8_path
from dlink.cli.models import Wanted, exported, model_file


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DLINK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.th").write_bytes(b"weights")
    return tmp_path


def test_a_path_says_all_that_an_export_depends_on(home):
    path = export_path(home / "a.th", 64, "fp32")
    assert path.parent == home / "cache"
    others = [export_path(home / "a.th", 128, "fp32"), export_path(home / "a.th", 64, "fp16")]
    (home / "a.th").write_bytes(b"others")
    others.append(export_path(home / "a.th", 64, "fp32"))
    assert len({path, *others}) == 4


def test_the_folder_of_a_file_is_no_part_of_its_path(home):
    (home / "other").mkdir()
    shutil.copy(home / "a.th", home / "other")
    assert export_path(home / "other" / "a.th", 64, "fp32") == export_path(home / "a.th", 64, "fp32")
    assert int8_path(home / "other" / "a.th", "x") == int8_path(home / "a.th", "x")


def test_a_path_says_all_that_an_int8_file_depends_on(home):
    path = int8_path(home / "a.th", "scenes24")
    other = int8_path(home / "a.th", "0123")
    (home / "a.th").write_bytes(b"others")
    assert len({path, other, int8_path(home / "a.th", "scenes24")}) == 3


def test_what_another_version_wrote_is_not_taken(home, monkeypatch):
    before = export_path(home / "a.th", 64, "fp32"), int8_path(home / "a.th", "x")
    monkeypatch.setattr(cache, "EXPORT_VERSION", 1_000)
    monkeypatch.setattr(cache, "INT8_VERSION", 1_000)
    after = export_path(home / "a.th", 64, "fp32"), int8_path(home / "a.th", "x")
    assert not set(before) & set(after)


def test_a_file_that_is_kept_is_not_made_again(home, monkeypatch):
    import dlink.export.export

    made = []
    monkeypatch.setattr(dlink.export.export, "export", lambda read, path, *rest: made.append(path.touch()))
    (home / "cache").mkdir()
    assert exported(None, 128, "fp32") == exported(None, 128, "fp32")
    assert model_file(None, Wanted(precision="fp32", tile=128)) == exported(None, 128, "fp32")
    assert len(made) == 1
