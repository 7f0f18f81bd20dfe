"""Files: written whole or not at all, identified by their hash, kept in a cache folder."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dlink.runtime.errors import BadInput

CHECKPOINTS = (".th", ".pth", ".pt", ".pt2", ".ckpt", ".safetensors")  # under these names PyTorch's weights are kept


@dataclass(frozen=True, kw_only=True)
class FileMark:
    """A file as it was: its name without a folder, SHA-256 in hexadecimal and size in bytes."""

    name: str
    sha256: str
    bytes: int


def mark_of(name: str, data: bytes) -> FileMark:
    """The mark of a file whose bytes are at hand."""
    return FileMark(name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


@contextmanager
def replacing(path: Path, lasting: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` to write to. It is renamed to `path` at the end, or removed after a failure.

    It keeps the suffix, because libraries choose a format by it. lasting: its bytes are on the disk before it gets its
    name, so that also after a power cut it is whole or not there.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        if lasting:
            to_disk(part)
        part.replace(path)
    except OSError as e:
        if e.filename not in (None, str(part)):  # a full disk names no file
            raise
        raise OSError(e.errno, e.strerror, str(path)) from e  # names the caller's path, not the temporary one
    finally:
        part.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    file = os.open(path, os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as f:
        digest = hashlib.sha256()
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def refuse_checkpoint(path: Path) -> None:
    """Raise BadInput for the name of a checkpoint, where a model is expected."""
    if path.suffix in CHECKPOINTS:
        raise BadInput(f"{path}: is a checkpoint; make a model of it first: dlink-export {path} {path.stem}.onnx")


def file_mark(path: Path) -> FileMark:
    """The mark of a file on disk, which is not read into memory."""
    return FileMark(name=path.name, sha256=file_sha256(path), bytes=path.stat().st_size)


def cache_folder() -> Path:
    """$DLINK_CACHE, else `dlink` in the user's cache folder."""
    if own := os.environ.get("DLINK_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlink"
