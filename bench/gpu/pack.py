"""Packs what a GPU host without a network lacks: `make gpu-bundle [CHECKPOINT=roads.th TILES=tiles/]`.

    python -m dlink.bench.gpu.pack [--checkpoint roads.th] [--tiles tiles/] [--only rtx,quarter]

Writes folders build/gpu/parts/01, 02, ..., each of which fits into a transfer together with the tree. Everything is
cached by the hash of its sources, so a second run takes seconds, and a stopped run continues. Needs Linux on x86-64,
CPython 3.12 and 3.10 (PYTHON312, PYTHON310, on the path or pyenv's), g++, xz and a package index.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from dlink.bench.gpu.parts import FORMAT, MANIFEST, cut, read_manifest
from dlink.runtime.errors import DlinkError
from dlink.runtime.files import file_sha256

MIB = 1 << 20
TRANSFER = 64 * MIB  # with the tree
SPARE = MIB  # of a transfer, for its packaging
MOST = 60 * MIB  # of a folder
ITEMS = ("rtx", "quarter", "trt86", "full", "checkpoint")  # in the order in which folders are filled
# Libraries repeat kernels for many GPUs at large distances: a large dictionary saves a third; a plain search is fast.
XZ = ("-T2", "--block-size=512MiB", "--lzma2=preset=1,dict=128MiB,mf=hc4,mode=fast,nice=128,depth=24")
ROOT = Path(__file__).resolve().parents[2]  # resolved, because the folder may be a link

# Packages that pip installs with their requirements. The host has NumPy, click, ONNX, PyTorch, OpenCV and pytest.
RTX = ("tensorrt-rtx==1.7.1.116", "polygraphy==0.53.6", "safetensors>=0.5")
ON_HOST = ("numpy", "numpy.libs", "numpy-*.dist-info")
TRT86 = "tensorrt==8.6.0"  # the last full TensorRT with a wheel; with NumPy 2 it returns wrong arrays
BESIDE86 = ("numpy<2", "click>=8.1", "onnx>=1.21", "polygraphy==0.53.6", "pytest>=8")
LEFT_OUT = ("__pycache__", "site-packages", "config-*", "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3",
            "ensurepip", "pydoc_data", "_test*.so", "_tkinter*.so", "nis*.so")  # fmt: skip
# TensorRT's real plugins need cuBLAS and cuDNN, 1.8 GB; no network of dlink uses a plugin.
NO_PLUGINS = 'extern "C" bool initLibNvInferPlugins(void*, const char*) { return true; }'
LAUNCHER = """#!/bin/sh
# Python 3.10 of this bundle; it uses libraries of the bundle if the system lacks those that it needs.
home=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
libraries=$home/py310/lib
[ ! -e "$home/fallback.on" ] || libraries=$libraries:$home/fallback
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$home/py310/bin/python3.10" "$@"
"""

SCENES, FIRST_SCENE, SAMPLES, HELD, SHOWN = (
    24,
    3_000_000,
    16,
    4,
    4,
)  # generated tiles: number, first seed, for ranges, for the holdout, for checks
MOST_TILES = 8  # of the user's tiles are packed
EXPORTS = ("fp32", "fp16")
INT8 = {"int8": "int8", "int8.conv": "conv", "int8.fp16": "fp16"}  # ending -> --deconv
FULL = ("fp16", "int8", "int8.conv")


@dataclass(frozen=True)
class Item:
    """One tar file: the hash of its sources, and the function that fills its folder."""

    name: str
    key: str
    make: Callable[[Path], None]
    xz: bool = True  # weights do not compress
    facts: Mapping[str, str] = field(default_factory=dict)


@click.command()
@click.option("--checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A full-size network.")
@click.option("--tiles", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Its tiles, labelled.")
@click.option("--only", help="Items, separated by commas.  [default: all]")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "build" / "gpu", help="[default: build/gpu]")
def main(checkpoint: Path | None, tiles: Path | None, only: str | None, out: Path) -> None:
    """Pack everything into folders, one for each transfer."""
    cache = out / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = only.split(",") if only else list(ITEMS)
    limit = min(MOST, TRANSFER - SPARE - tree_bytes(ROOT))
    log_line(f"the tree takes {tree_bytes(ROOT) / MIB:.1f} MiB of a transfer, a folder may have {limit / MIB:.1f} MiB")
    if strange := [name for name in wanted if name not in MAKERS]:
        raise click.ClickException(f"--only {strange[0]}: there are {', '.join(MAKERS)}")
    refuse_early(wanted, checkpoint, tiles)
    tars = {}
    for name in wanted:
        if item := MAKERS[name](cache, checkpoint, tiles):
            tars[name] = item, packed(item, cache)
    split(tars, out, limit)


def refuse_early(wanted: Sequence[str], checkpoint: Path | None, tiles: Path | None) -> None:
    """Raise errors now that would otherwise end the packing after minutes of work."""
    for name, version in (("rtx", "3.12"), ("trt86", "3.10")):
        if name in wanted:
            interpreter(version)
    for program in ("g++", "xz"):
        if not shutil.which(program):
            raise click.ClickException(f"needs {program}: apt-get install {'xz-utils' if program == 'xz' else program}")
    try:
        if tiles:
            from dlink.imagery.images import find_tiles

            find_tiles(tiles)
        if checkpoint:
            from dlink.nets.checkpoint import read_checkpoint

            read_checkpoint(checkpoint)
    except DlinkError as e:
        raise click.ClickException(str(e)) from e
    if tiles and not checkpoint:
        raise click.ClickException("TILES are for your own network: name its CHECKPOINT too")


def log_line(words: str) -> None:
    click.echo(f"[{time.perf_counter() - BEGUN:5.0f} s] {words}", err=True)


BEGUN = time.perf_counter()


def tree_bytes(root: Path) -> int:
    """The size of a checkout in a transfer: the files that git has or does not ignore."""
    listed = run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=root)
    return sum((root / name).stat().st_size for name in set(listed.split("\0")) - {""} if (root / name).is_file())


def run(command: Sequence[str | Path], cwd: Path | None = None, stdin: str | None = None) -> str:
    """A command's output. If the command fails, the error shows its last lines."""
    done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True)
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise click.ClickException(f"{' '.join(map(str, command[:6]))} ... ended with {done.returncode}:\n{end}")
    return done.stdout


def hash_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def hash_of_files(paths: Iterable[Path]) -> str:
    return hash_of(*[(path.name, file_sha256(path)) for path in sorted(paths)])


# -- Python packages


def interpreter(version: str) -> Path:
    """A CPython of that version that is not a virtual environment."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [os.environ.get(f"PYTHON{version.replace('.', '')}", ""), shutil.which(f"python{version}") or ""]
    candidates += [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))]
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys.prefix == sys.base_prefix, sys.executable)"
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.startswith(f"{version} True"):
            return Path(done.stdout.split(maxsplit=2)[2].strip())
    raise click.ClickException(f"needs CPython {version}: install it, or name it in PYTHON{version.replace('.', '')}")


def environment(version: str, cache: Path) -> Path:
    """The Python of an environment with pip; the environment is made once."""
    python = cache / f"python{version}" / "bin" / "python"
    if not python.exists():
        run([interpreter(version), "-m", "venv", cache / f"python{version}"])
    return python


def pycuda(version: str, cache: Path) -> Path:
    """The wheel of pycuda for a Python; package indexes have none."""
    out = cache / f"pycuda{version}"
    run(["bash", ROOT / "bench" / "gpu" / "pycuda.sh", environment(version, cache), out])
    [wheel] = out.glob("pycuda-*.whl")
    return wheel


def install(python: Path, site: Path, wanted: Sequence[str | Path], *options: str) -> None:
    """Install packages into a folder, without files that name this machine."""
    run([python, "-m", "pip", "install", "-q", "--no-compile", *options, "--target", site, *wanted])
    shutil.rmtree(site / "bin", ignore_errors=True)
    for file in site.glob("*.dist-info/direct_url.json"):
        file.unlink()


def rtx(cache: Path, *unused: object) -> Item:
    def make(folder: Path) -> None:
        python = environment("3.12", cache)
        install(python, folder / "site", [*RTX, pycuda("3.12", cache)])
        for path in (path for pattern in ON_HOST for path in (folder / "site").glob(pattern)):
            shutil.rmtree(path)

    return Item("rtx", hash_of(RTX, ON_HOST, pycuda_key()), make, facts={"engine": engine_of(RTX[0])})


def trt86(cache: Path, *unused: object) -> Item:
    def make(folder: Path) -> None:
        python = environment("3.10", cache)
        copy_python(folder, Path(run([python, "-c", "import sys; print(sys.base_prefix)"]).strip()))
        site = folder / "py310" / "lib" / "python3.10" / "site-packages"
        install(python, site, [*BESIDE86, pycuda("3.10", cache)])
        install(python, site, [TRT86], "--no-deps")
        [plugins] = site.glob("tensorrt/libnvinfer_plugin.so.*")
        plugins.unlink()
        options = ["-shared", "-fPIC", "-O1", "-s", f"-Wl,-soname,{plugins.name}"]
        run(["g++", "-x", "c++", *options, "-o", plugins, "-"], stdin=NO_PLUGINS)
        check = "import numpy, tensorrt; assert list(tensorrt.Weights(numpy.ones(3, 'f')).numpy()) == [1, 1, 1]"
        run(
            [folder / "bin" / "python3.10", "-B", "-c", f"import bz2, ctypes, lzma, zlib, click, onnx, pytest; {check}"]
        )

    key = hash_of(TRT86, BESIDE86, LEFT_OUT, LAUNCHER, NO_PLUGINS, pycuda_key())
    return Item("trt86", key, make, facts={"engine": engine_of(TRT86)})


def pycuda_key() -> str:
    script = ROOT / "bench" / "gpu" / "pycuda.sh"
    return file_sha256(script) if script.exists() else ""


def engine_of(requirement: str) -> str:
    name, _, version = requirement.partition("==")
    return f"{'TensorRT-RTX' if name.endswith('rtx') else 'TensorRT'} {version}"


def copy_python(folder: Path, base: Path) -> None:
    """Copy the interpreter at `base` without its packages, and the libraries that the host may lack."""
    target = folder / "py310"
    (target / "bin").mkdir(parents=True)
    shutil.copy(base / "bin" / "python3.10", target / "bin")
    shutil.copytree(
        base / "lib" / "python3.10", target / "lib" / "python3.10", ignore=shutil.ignore_patterns(*LEFT_OUT)
    )
    for library in base.glob("lib/libpython3*.so*"):
        shutil.copy(library, target / "lib", follow_symlinks=False)
    (folder / "fallback").mkdir()
    modules = (target / "lib" / "python3.10" / "lib-dynload").glob("*.so")
    for line in {line for module in modules for line in run(["ldd", module]).splitlines()}:
        name, _, found = line.strip().partition(" => /")
        if found and not name.startswith(
            ("libc.", "libm.", "libdl.", "librt.", "libutil.", "libpthread.", "libpython")
        ):
            shutil.copy("/" + found.split()[0], folder / "fallback" / name)
    (folder / "bin").mkdir()
    launcher = folder / "bin" / "python3.10"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)


# -- networks and tiles


def dlink(*arguments: object) -> None:
    run([sys.executable, "-c", "from dlink.cli.main import dlink; dlink()", *map(str, arguments)], cwd=ROOT)


def scenes(cache: Path) -> Path:
    """Generated tiles to calibrate on."""
    folder = cache / f"scenes-{hash_of(SCENES, FIRST_SCENE, code('scenes'))}"
    if not folder.exists():
        log_line("generate scenes")
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        dlink("scenes", new, "--count", SCENES, "--seed", FIRST_SCENE, "--workers", 1)
        new.rename(folder)
    return folder


def code(*folders: str) -> str:
    """The hash of dlink's own code in some folders."""
    return hash_of_files(path for folder in folders for path in (ROOT / folder).glob("*.py"))


def network(cache: Path, stem: str, ending: str, checkpoint: Path, tiles: Path) -> Path:
    """One ONNX file of a checkpoint, exported or calibrated once."""
    pictures = sorted(tiles.iterdir())
    key = hash_of(ending, file_sha256(checkpoint), SAMPLES, HELD, code("export", "calib", "nets"))
    if ending in INT8:
        key = hash_of(key, hash_of_files(pictures))
    out = cache / f"{stem}.{ending}-{key}.onnx"
    if out.exists():
        return out
    log_line(f"make {stem}.{ending}.onnx")
    new = out.with_suffix(".new.onnx")
    if ending in INT8:
        float_network = network(cache, stem, "fp16", checkpoint, tiles)
        ranges = cache / f"{stem}-{hash_of(float_network.name, hash_of_files(pictures))}.ranges.json"
        sizes = ("--samples", SAMPLES, "--held", HELD, "--ranges", ranges)
        dlink("calibrate", float_network, tiles, "-o", new, *sizes, "--deconv", INT8[ending])
    else:
        dlink("export", checkpoint, new, "--precision", ending)
    new.rename(out)
    return out


def quarter(cache: Path, *unused: object) -> Item:
    """The item with the embedded network in every precision, and scenes."""
    checkpoint = ROOT / "nets" / "weights" / "dlinknet34-w025.th"

    def make(folder: Path) -> None:
        lay_out(folder, cache, "quarter", (*EXPORTS, *INT8), checkpoint, scenes(cache))
        shutil.copy(checkpoint, folder / "roads.th")
        pictures = sorted(scenes(cache).iterdir())[: 2 * SHOWN]  # each with its mask
        copy_all(pictures, folder / "tiles")

    key = hash_of(SCENES, FIRST_SCENE, SHOWN, file_sha256(checkpoint), code("export", "calib", "nets", "scenes"))
    return Item("quarter", key, make)


def full(cache: Path, checkpoint: Path | None, tiles: Path | None) -> Item | None:
    """The item with the user's network in FP16 and INT8, and some of the user's tiles."""
    if not checkpoint:
        return None
    source = checkpoint

    def make(folder: Path) -> None:
        calibrated = tiles or scenes(cache)
        lay_out(folder, cache, "full", FULL, source, calibrated)
        from dlink.imagery.images import find_tiles

        shown = find_tiles(calibrated)
        shown = [*[tile for tile in shown if tile.label], *[tile for tile in shown if not tile.label]][:MOST_TILES]
        copy_all([path for tile in shown for path in (tile.image, tile.label) if path], folder / "tiles")

    shown = hash_of_files(path for path in tiles.iterdir() if path.is_file()) if tiles else hash_of(SCENES, FIRST_SCENE)
    key = hash_of(file_sha256(checkpoint), shown, MOST_TILES, FULL, code("export", "calib", "nets"))
    return Item("full", key, make, xz=False)


def checkpoint_item(cache: Path, checkpoint: Path | None, *unused: object) -> Item | None:
    """The item with the user's checkpoint, which PyTorch runs for comparison."""
    if not checkpoint:
        return None
    source = checkpoint

    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        shutil.copy(source, folder / "roads.th")

    return Item("checkpoint", hash_of(file_sha256(checkpoint)), make, xz=False)


def lay_out(folder: Path, cache: Path, stem: str, endings: Sequence[str], checkpoint: Path, tiles: Path) -> None:
    folder.mkdir(exist_ok=True)
    for ending in endings:
        shutil.copy(network(cache, stem, ending, checkpoint, tiles), folder / f"{stem}.{ending}.onnx")


def copy_all(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)


MAKERS: dict[str, Callable[[Path, Path | None, Path | None], Item | None]] = {
    "rtx": rtx, "quarter": quarter, "trt86": trt86, "full": full, "checkpoint": checkpoint_item,
}  # fmt: skip


# -- tar files and parts


def packed(item: Item, cache: Path) -> Path:
    """An item's tar file, made once for each key; older ones are deleted."""
    out = cache / f"{item.name}-{item.key}.tar{'.xz' if item.xz else ''}"
    if out.exists():
        return out
    folder, new = cache / f"{item.name}.making", cache / f"{item.name}.tar.new"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    log_line(f"gather {item.name}")
    item.make(folder)
    log_line(f"pack {item.name}")
    same = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+w"]
    with (
        new.open("wb") as f,
        subprocess.Popen(["tar", *same, "-cf", "-", "-C", folder, "."], stdout=subprocess.PIPE) as tar,
    ):
        through = ["xz", "-c", *XZ] if item.xz else ["cat"]
        failed = subprocess.run(through, stdin=tar.stdout, stdout=f).returncode
    if failed or tar.returncode:
        raise click.ClickException(f"{item.name}: could not be packed")
    for old in cache.glob(f"{item.name}-*.tar*"):
        old.unlink()
    new.rename(out)
    shutil.rmtree(folder)
    return out


def split(tars: Mapping[str, tuple[Item, Path]], out: Path, limit: int) -> None:
    """Replace the folders of parts; each gets the manifest of all items."""
    target, new, mark = out / "parts", out / "parts.new", out / "cache" / "parts.key"
    key = hash_of(
        limit, [(name, tar.name, tar.stat().st_size, tar.stat().st_mtime_ns) for name, (_, tar) in tars.items()]
    )
    if mark.exists() and mark.read_text() == key and whole(target):
        log_line(f"{target}: unchanged")
        return
    mark.unlink(missing_ok=True)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    items: dict[str, object] = {}
    number = room = 0
    for name in (name for name in ITEMS if name in tars):
        item, tar = tars[name]
        parts = []
        for part, begins, start, end in cut(tar, name, room, limit):
            number += begins
            room = (limit if begins else room) - (end - start)
            folder = new / f"{number:02}"
            folder.mkdir(exist_ok=True)
            with tar.open("rb") as f:
                f.seek(start)
                (folder / part).write_bytes(f.read(end - start))
            parts.append(
                {"name": part, "folder": folder.name, "bytes": end - start, "sha256": file_sha256(folder / part)}
            )
        tar_facts = {"bytes": tar.stat().st_size, "sha256": file_sha256(tar), "xz": item.xz}
        items[name] = {"tar": tar_facts, "facts": dict(item.facts), "parts": parts}
        where = dict.fromkeys(str(part["folder"]) for part in parts)
        log_line(f"{name}: {tar.stat().st_size / MIB:.1f} MiB in folders {', '.join(where)}")
    text = json.dumps({"format": FORMAT, "items": items}, indent=1)
    for folder in new.iterdir():
        (folder / MANIFEST).write_text(text)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    mark.write_text(key)
    sizes = [sum(f.stat().st_size for f in folder.iterdir()) / MIB for folder in sorted(target.iterdir())]
    log_line(f"{target}: {len(sizes)} folders, {sum(sizes):.0f} MiB, the largest {max(sizes, default=0):.1f} MiB")


def whole(target: Path) -> bool:
    """Whether every part of the manifest is in its folder."""
    folders = sorted(target.iterdir()) if target.exists() else []
    items = read_manifest(folders[0]) if folders else {}
    parts = [part for item in items.values() for part in item["parts"]]
    paths = [(target / part["folder"] / part["name"], part["bytes"]) for part in parts]
    return bool(paths) and all(path.exists() and path.stat().st_size == size for path, size in paths)


if __name__ == "__main__":
    main()
