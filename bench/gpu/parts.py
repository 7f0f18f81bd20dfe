"""The parts that are sent to a GPU host: items, each a tar file in parts, and one manifest that names all parts.

    python -m dlink.bench.gpu.parts FOLDER [FOLDER ...]

moves the parts in these folders to the stage folder outside of the tree ($DLINK_GPU, else /tmp/dlink-gpu), names the
parts that are still missing, and unpacks complete items. `manifest.json` is the same in every folder:

    {"format": 1, "items": {"rtx": {
        "tar": {"bytes": 1, "sha256": "...", "xz": true},
        "facts": {"engine": "TensorRT-RTX 1.7.1.116"},
        "parts": [{"name": "rtx.01", "folder": "01", "bytes": 1, "sha256": "..."}]
    }}}

Needs NumPy, as all of dlink does.
"""

import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dlink.runtime.files import file_sha256

MANIFEST = "manifest.json"
FORMAT = 1
CHUNK = 1 << 20


def stage_folder() -> Path:
    """The folder that keeps everything between two calls, outside of the tree."""
    return Path(os.environ.get("DLINK_GPU") or "/tmp/dlink-gpu")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The items of a folder's manifest; empty without a manifest."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    manifest = json.loads(path.read_text())
    if manifest.get("format") != FORMAT:
        raise SystemExit(f"{path}: is of format {manifest.get('format')}, this tree reads {FORMAT}: pack again")
    items: dict[str, Any] = manifest["items"]
    return items


def cut(tar: Path, name: str, room: int, limit: int) -> Iterator[tuple[str, bool, int, int]]:
    """A file's parts: (name, whether it begins a new folder, from, to). `room` is the last folder's free space."""
    size, at, number = tar.stat().st_size, 0, 0
    while at < size:
        new = room < min(size - at, limit // 16)  # avoids a very small part
        room = limit if new else room
        end = min(size, at + room)
        number += 1
        yield f"{name}.{number:02}", new, at, end
        room, at = room - (end - at), end


def take(folder: Path, stage: Path) -> list[str]:
    """Move the parts of a folder to the stage; return a line for each part that is damaged or unknown."""
    parts = stage / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    if (folder / MANIFEST).exists():
        read_manifest(folder)
        shutil.copy(folder / MANIFEST, stage / MANIFEST)
    elif not (stage / MANIFEST).exists():
        return [
            f"{folder}: has no {MANIFEST}; give the folders that `make gpu-bundle` made, such as build/gpu/parts/01"
        ]
    known = {part["name"]: part for item in read_manifest(stage).values() for part in item["parts"]}
    faults = []
    files = [file for file in sorted(folder.iterdir()) if file.name != MANIFEST]
    if not files:
        faults.append(f"{folder}: has no parts; `take` moves parts out of their folder")
    for file in files:
        if file.is_dir():
            faults.append(f"{file}: is a folder; give the folders of parts themselves")
        elif file.name not in known:
            faults.append(f"{file.name}: does not belong to this bundle")
        elif file_sha256(file) != known[file.name]["sha256"]:
            faults.append(f"{file.name}: is damaged, or belongs to another bundle; send folder {folder.name} again")
        else:
            shutil.copy(file, parts / f"{file.name}.new")
            (parts / f"{file.name}.new").replace(parts / file.name)
            if os.access(folder, os.W_OK):
                file.unlink()
    return faults


def missing(item: dict[str, Any], stage: Path) -> list[dict[str, Any]]:
    """An item's parts that are not on the stage, judged by size. Contents are checked when the item is unpacked."""
    there = stage / "parts"
    return [p for p in item["parts"] if not (file := there / p["name"]).exists() or file.stat().st_size != p["bytes"]]


def unpacked(name: str, item: dict[str, Any], stage: Path) -> bool:
    mark = stage / name / ".sha256"
    return mark.exists() and mark.read_text() == item["tar"]["sha256"]


def unpack(name: str, item: dict[str, Any], stage: Path) -> None:
    """Join an item's parts, unpack it into the stage's folder of its name, and delete the parts."""
    parts = [stage / "parts" / part["name"] for part in item["parts"]]
    for path, part in zip(parts, item["parts"], strict=True):
        if file_sha256(path) != part["sha256"]:
            path.unlink()
            raise SystemExit(f"{name}: {path.name} is damaged; send folder {part['folder']} again")
    new, target = stage / f"{name}.new", stage / name
    shutil.rmtree(new, ignore_errors=True)
    with (
        joined(parts, stage / f"{name}.tar", item["tar"]["xz"]) as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        extract(tar, new)
    (new / ".sha256").write_text(item["tar"]["sha256"])
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    for path in parts:
        path.unlink()


def extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpack an archive; nothing lands outside of the folder where Python can see to it (3.10.12, 3.11.4 and newer)."""
    tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
    tar.extractall(folder)


@contextmanager
def joined(parts: Sequence[Path], whole: Path, xz: bool) -> Iterator[IO[bytes]]:
    """The joined bytes of the parts, decompressed by xz if it is installed, else by Python."""
    with whole.open("wb") as out:
        for path in parts:
            with path.open("rb") as f:
                shutil.copyfileobj(f, out, CHUNK)
    try:
        if not xz:
            with whole.open("rb") as plain:
                yield plain
        elif program := shutil.which("xz"):
            with subprocess.Popen([program, "-dc", "-T0", whole], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                yield process.stdout
                process.stdout.read()
            if process.returncode:
                raise SystemExit(f"{whole.name}: xz ended with {process.returncode}")
        else:
            with lzma.open(whole) as slow:
                yield slow
    finally:
        whole.unlink()


def main(folders: Sequence[str]) -> int:
    """Take and unpack parts, and print the state; returns 1 if a part is damaged or unknown."""
    stage = stage_folder()
    faults = [fault for folder in folders for fault in take(Path(folder), stage)]
    for line in faults:
        print(line)
    for name, item in read_manifest(stage).items():
        if unpacked(name, item, stage):
            print(f"{name}: already unpacked")
        elif lacking := missing(item, stage):
            print(f"{name}: still missing: " + ", ".join(f"{p['name']} (folder {p['folder']})" for p in lacking))
        else:
            unpack(name, item, stage)
            print(f"{name}: complete, unpacked")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
