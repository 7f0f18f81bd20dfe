"""What is given away: the sdist and the wheel hold what they should and nothing else. `make dist` does more."""

import re
import shutil
import subprocess
import tarfile

import pytest

import dlink
from dlink.bench.gpu.parts import extract
from tests.support.dist import (
    build_sdist,
    build_wheel,
    compare,
    compare_wheels,
    names_in,
    sdist_holds,
    tracked,
    wheel_holds,
)
from tests.support.environments import ROOT
from tests.support.installs import Failed


@pytest.fixture(scope="module")
def files():
    """Of the checkout: what is tracked, and what would be."""
    try:
        return tracked(ROOT, "--cached", "--others", "--exclude-standard")
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("needs a clone: git clone, not the sdist")


@pytest.fixture(scope="module")
def built(files, tmp_path_factory):
    """An sdist of the checkout as it is, and a wheel of that."""
    folder = tmp_path_factory.mktemp("dist")
    for name in files:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    sdist = build_sdist(folder / "source", folder / "dist")
    return sdist, build_wheel(sdist, folder / "dist")


def test_the_sdist_has_what_is_tracked(files, built):
    compare("the sdist", names_in(built[0]), sdist_holds(files))


def test_the_wheel_has_the_packages_and_their_data_alone(files, built):
    compare("the wheel", names_in(built[1]), wheel_holds(files))


def test_the_wheel_has_what_a_user_needs():
    held = wheel_holds(tracked(ROOT))
    assert {
        "dlink/__init__.py",
        "dlink/accuracy/report/report.css",
        "dlink/accuracy/road_graphs/py.typed",
        "dlink/nets/weights/dlinknet34-w025.th",
        "dlink/trt_runtime/kernels/kernels.ptx",
    } <= held
    assert not [name for name in held if "test" in name.split("/")[1] or "gpu" in name.split("/")]


def test_the_sdist_builds_the_checkouts_wheel(built, tmp_path):
    with tarfile.open(built[0]) as tar:
        extract(tar, tmp_path)
    [source] = tmp_path.iterdir()
    compare_wheels(built[1], build_wheel(source, tmp_path / "again"))
    (source / "runtime" / "views.py").write_text("")
    shutil.rmtree(source / "build", ignore_errors=True)
    with pytest.raises(Failed, match=r"differ in dlink-.*RECORD, dlink/runtime/views\.py"):
        compare_wheels(built[1], build_wheel(source, tmp_path / "other"))


def test_the_citation_and_the_changelog_are_of_this_version():
    assert f"\nversion: {dlink.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## \[(Unreleased|{re.escape(dlink.__version__)})\]", (ROOT / "CHANGELOG.md").read_text(), re.M)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "examples/README.md"])
def test_what_a_page_names_is_there(page):
    text = (ROOT / page).read_text()
    paths = re.findall(r"`((?:[a-z_]+/)+(?:[\w.-]+)?)`", text)
    links = [(ROOT / page).parent / link for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", text)]
    assert len(paths) + len(links) > 2
    assert [path for path in [*map(ROOT.joinpath, paths), *links] if not path.exists()] == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a.py"}, "the wheel lacks b.ptx; MANIFEST.in and package-data"),
        ({"a.py", "b.ptx", "tests/c.py"}, "the wheel has what it should not: tests/c.py"),
    ],
)
def test_what_is_missing_or_too_much_is_named(found, message):
    with pytest.raises(Failed, match=message):
        compare("the wheel", found, {"a.py", "b.ptx"})
