"""A release, built of what is committed and tried: `make dist` leaves dist/ where all of this holds, else exits with 1.

python -m tests.support.dist [FOLDER]     dist/ where none is named

The sdist is built of a clone of HEAD, the wheel of the sdist, and a second wheel of the clone itself is the same. Both
hold exactly what they should (`sdist_holds`, `wheel_holds`). The wheel is installed by pip in an environment of its
own, whose libraries are links to those that are installed here, and makes the demonstration outside of the checkout.
Needs git and no network.
"""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import dlink
from tests.support.environments import ROOT, environment
from tests.support.installs import Failed, last_line, run
from tests.support.trials import TRIALS

NAME = f"dlink-{dlink.__version__}"
INFO = {f"{NAME}.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")}
INFO |= {f"{NAME}.dist-info/licenses/LICENSE"}
# Of the packages' folders: what is run from a checkout, and notes on it. Every other tracked file there is shipped.
NOT_SHIPPED = ("bench/gpu/", "bench/peers/", "bench/peers.md", "bench/results.jsonl", "training/README.md")
BUILD = "from setuptools.build_meta import build_sdist; import sys; build_sdist(sys.argv[1])"


def main(out: Path) -> int:
    try:
        with TemporaryDirectory() as folder:
            made = release(Path(folder))
            out.mkdir(parents=True, exist_ok=True)
            for path in made:
                print(f"{shutil.copy(path, out)}  {path.stat().st_size / 1e6:.1f} MB")
    except Failed as e:
        print(f"FAILED: {e}")
        return 1
    return 0


def release(folder: Path) -> list[Path]:
    """The sdist and the wheel of HEAD, both tried; Failed says what is wrong."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    if changed := tracked(ROOT, "--modified", "--others", "--exclude-standard"):
        print(f"not committed and not in it: {', '.join(sorted(changed)[:5])}{', ...' if len(changed) > 5 else ''}")
    files = tracked(clone)
    sdist = build_sdist(clone, folder / "dist")
    wheel = build_wheel(sdist, folder / "dist")
    compare("the sdist", names_in(sdist), sdist_holds(files))
    compare("the wheel", names_in(wheel), wheel_holds(files))
    compare_wheels(wheel, build_wheel(clone, folder / "again"))
    print(f"contents: {len(names_in(sdist))} files in the sdist, {len(names_in(wheel))} in the wheel")
    try_demo(wheel, folder)
    return [sdist, wheel]


def tracked(folder: Path, *options: str) -> set[str]:
    """What git knows in a folder, by its path from there."""
    command = ["git", "ls-files", "-z", *options]
    said = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    return {name for name in said.split("\0") if name and (folder / name).exists()}


def build_sdist(source: Path, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    must([sys.executable, "-c", BUILD, out], source)
    return out / f"{NAME}.tar.gz"


def build_wheel(source: Path, out: Path) -> Path:
    """A wheel of a folder or an sdist, by the setuptools that is here."""
    options = ["--no-deps", "--no-index", "--no-build-isolation", "-w", out]
    must([sys.executable, "-m", "pip", "wheel", "-q", *options, source], source.parent)
    return out / f"{NAME}-py3-none-any.whl"


def must(command: list[str | Path], folder: Path) -> str:
    done = run(command, folder)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command[:5]))}: {last_line(done.stderr)}")
    return done.stdout


def names_in(archive: Path) -> set[str]:
    """The files of an sdist, without its folder, or of a wheel."""
    if archive.suffix == ".whl":
        return {name for name in zipfile.ZipFile(archive).namelist() if not name.endswith("/")}
    with tarfile.open(archive) as tar:
        return {member.name.partition("/")[2] for member in tar if member.isfile()}


def sdist_holds(files: Iterable[str]) -> set[str]:
    """All that is tracked but what begins with a dot, and what setuptools adds."""
    added = {"PKG-INFO", "setup.cfg"}
    for name in (
        "PKG-INFO",
        "SOURCES.txt",
        "dependency_links.txt",
        "entry_points.txt",
        "requires.txt",
        "top_level.txt",
    ):
        added.add(f"dlink.egg-info/{name}")
    return {name for name in files if not any(part.startswith(".") for part in PurePosixPath(name).parts)} | added


def wheel_holds(files: Iterable[str]) -> set[str]:
    """All that is tracked in the packages' folders but NOT_SHIPPED, and what pip writes down."""
    files = set(files)
    packages = {name.removesuffix("py.typed") for name in files if name.endswith("/py.typed")}
    shipped = {name for name in files if name.startswith(tuple(packages)) and not name.startswith(NOT_SHIPPED)}
    return {f"dlink/{name.removeprefix('package/')}" for name in shipped} | INFO


def compare(what: str, found: set[str], wanted: set[str]) -> None:
    """Failed where files are missing, or there that should not be."""
    if missing := sorted(wanted - found):
        raise Failed(
            f"{what} lacks {', '.join(missing[:5])}; MANIFEST.in and package-data in pyproject.toml say what it has"
        )
    if more := sorted(found - wanted):
        raise Failed(f"{what} has what it should not: {', '.join(more[:5])}")


def compare_wheels(one: Path, other: Path) -> None:
    """Failed unless two wheels have the same bytes in each file."""
    first, second = ({info.filename: info.CRC for info in zipfile.ZipFile(w).infolist()} for w in (one, other))
    if differ := sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name)):
        raise Failed(f"the wheel of the sdist and that of the clone differ in {', '.join(differ[:5])}")


def try_demo(wheel: Path, folder: Path) -> None:
    """Install the wheel, and run what README promises first."""
    trial, work = TRIALS["all"], folder / "work"
    bin = environment(folder / "env", ["all"], wheel=wheel).parent
    work.mkdir()
    for line in trial.commands:
        step, _, arguments = line.partition(" ")
        must([bin / f"dlink-{step}", *arguments.split()], work)
        print(f"installed: dlink-{line}: ok")
    if not (work / trial.made).exists():
        raise Failed(f"dlink-{trial.commands[-1]} left no {trial.made}")


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:] or ["dist"])))
