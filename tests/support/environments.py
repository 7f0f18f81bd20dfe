"""Environments that hold what an extra of pyproject.toml brings and nothing else, without a network.

Their libraries are links to those that are installed here, with their metadata, and with all that pip would bring for
them. dlink is linked too, or a wheel of it.
"""

import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {  # of the packages, as setup.py finds them; those inside others come with them
    "dlink" if path.parent.name == "package" else f"dlink.{path.parent.name}": path.parent.name
    for path in sorted(ROOT.glob("*/py.typed"))
}


def environment(folder: Path, extras: Iterable[str], besides: Iterable[str] = (), wheel: Path | None = None) -> Path:
    """The Python of a new environment with `dlink[extras]`, and what else is named."""
    venv.create(folder, with_pip=False, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    for distribution in distributions([f"dlink[{','.join(extras)}]", *besides]):
        if distribution.name != "dlink":
            for entry in entries(distribution):
                link(packages / entry, Path(str(distribution.locate_file(entry))))
    if wheel:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            folder / "bin" / "python",
            "install",
            "--root-user-action=ignore",
        ]
        subprocess.run([*pip, "-q", "--no-deps", "--no-index", wheel], check=True)
    else:
        for package, source in FOLDERS.items():
            for file in (ROOT / source).iterdir():
                link(packages / package.replace(".", "/") / file.name, file)
    return folder / "bin" / "python"


def build_wheel(folder: Path, *options: str) -> Path:
    """A wheel of the checkout as it is. Built from a copy: setuptools takes up what an older build left."""
    source = folder / "source"
    for name in FOLDERS.values():
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, *options, source]
    subprocess.run(command, check=True)
    [wheel] = folder.glob("dlink-*.whl")
    return wheel


def distributions(wanted: Iterable[str]) -> list[metadata.Distribution]:
    """What pip would install for these requirements, but for pycuda, of which there are no wheels."""
    todo, found = [Requirement(line) for line in wanted], {}
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), *sorted(requirement.extras))
        if key in found or key[0] == "pycuda":
            continue
        found[key] = metadata.distribution(requirement.name)
        todo += needed(found[key], requirement.extras)
    return list({d.name: d for d in found.values()}.values())


def needed(distribution: metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    for line in requires(distribution):
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in (extras or {""})):
            yield requirement


def requires(distribution: metadata.Distribution) -> list[str]:
    """Our own as pyproject.toml has them now, whenever it was installed."""
    if distribution.name != "dlink":
        return distribution.requires or []
    project = PROJECT["project"]
    optional = project["optional-dependencies"]
    return project["dependencies"] + [marked(line, extra) for extra, lines in optional.items() for line in lines]


def marked(line: str, extra: str) -> str:
    requirement, _, marker = line.partition(";")
    return f"{requirement}; extra == '{extra}'" + (f" and ({marker})" if marker else "")


def entries(distribution: metadata.Distribution) -> set[Path]:
    """What a distribution puts into site-packages: a folder or file each, of a namespace what is directly in it."""
    paths = [Path(str(file)) for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")]
    packages = {path.parts[0] for path in paths if path.name == "__init__.py" and len(path.parts) == 2}
    namespaces = {path.parts[0] for path in paths if len(path.parts) > 2} - packages
    shared = {name for name in namespaces if name.isidentifier()}
    return {Path(*path.parts[:2]) if path.parts[0] in shared else Path(path.parts[0]) for path in paths}


def link(name: Path, source: Path) -> None:
    name.parent.mkdir(parents=True, exist_ok=True)
    if not name.exists() and source.exists():
        name.symlink_to(source)
