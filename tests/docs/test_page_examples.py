"""The Python in README and docs/ runs, block after block of a page, but for what needs a GPU."""

import shutil
from collections import Counter

import cv2
import pytest

from dlink.nets.embedded import EMBEDDED
from dlink.scenes.scene import scene
from tests.support.command import call
from tests.support.environments import ROOT
from tests.support.models import write_scout
from tests.support.pages import PAGES, blocks_of, name_of

pytestmark = pytest.mark.slow

PYTHON = {name_of(page): [b for b in blocks_of(page) if b.language == "python"] for page in PAGES}
ELSEWHERE = {"docs/jetson.md"}  # tests/test_jetson.py runs its block
NOT_RUN = {"docs/guides/embedding.md": 3}  # blocks for a GPU; nothing else may go without a run
TILE = 128  # px


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the examples read: a model of small tiles, its checkpoint, pictures."""
    folder = tmp_path_factory.mktemp("files")
    call("export", EMBEDDED, folder / "roads.onnx", "--tile", TILE)
    shutil.copy(EMBEDDED, folder / "roads.th")
    write_scout(folder / "scouted.onnx", folder / "roads.onnx")
    call("scenes", folder / "tiles", "--count", 2, "--size", TILE, "--workers", 1)
    cv2.imwrite(str(folder / "picture.jpg"), scene(7, 256).image[..., ::-1])
    return folder


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    """A copy of those files, where the example runs."""
    monkeypatch.chdir(shutil.copytree(files, tmp_path / "files"))


@pytest.mark.parametrize("page", [page for page, blocks in PYTHON.items() if blocks and page not in ELSEWHERE])
def test_the_python_of_a_page_runs(page, here):
    names = {"__name__": page}
    for block in PYTHON[page]:
        if not block.not_run:
            exec(compile("\n" * block.line + block.text, ROOT / page, "exec"), names)


def test_no_more_python_goes_without_a_run_than_needs_a_gpu():
    counted = Counter(page for page, blocks in PYTHON.items() for block in blocks if block.not_run)
    assert counted == NOT_RUN
    assert all("GPU" in b.not_run for blocks in PYTHON.values() for b in blocks if b.not_run)
