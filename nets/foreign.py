"""Tells which other kind of file was given in place of a checkpoint, by its first bytes or a zip's members."""

import re
from pathlib import Path
from zipfile import BadZipFile, ZipFile

HEAD = 1024  # bytes that are looked at
MEMBERS = 3  # of a zip, named in a message
STARTS = {  # a file's first bytes, and what it is
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; `git lfs pull` fetches it",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes them; dlink reads PyTorch's networks: save `net.state_dict()`",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "compressed by 7-Zip; unpack it first",
    b"Rar!": "compressed by RAR; unpack it first",
    b"\x89PNG": "a PNG picture, not a checkpoint; name the file that training saved",
    b"\xff\xd8\xff": "a JPEG picture, not a checkpoint; name the file that training saved",
    b"%PDF": "a PDF document, not a checkpoint; name the file that training saved",
}
PROGRAM = {"archive_format", "serialized_exported_program.json"}  # members of torch.export's zip, by its version
WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)
ONNX = re.compile(
    rb"\x08[\x01-\x20][\x12\x1a\x22\x3a\x42]"
)  # the version, then the producer, the graph or the operators
TEXT = re.compile(r"[\x20-\x7e\xa0-\U0010ffff\s]+")


def another_kind(path: Path) -> str:
    """What a file is and what to do, if it is plainly of another kind than a checkpoint; else empty."""
    with path.open("rb") as f:
        head = f.read(HEAD)
    if not head:
        return "not a checkpoint, or a damaged one; it is empty: copy or download it again"
    if head.startswith(b"PK\x03\x04"):
        return zip_kind(path)
    if WEB_PAGE.match(head):
        return "a web page, not a checkpoint; the download failed or wanted a login: open its address in a browser"
    if ONNX.match(head) and path.suffix != ".safetensors":
        return "an ONNX file, not a checkpoint; give it the name .onnx, or save `net.state_dict()` of its network"
    return next((words for start, words in STARTS.items() if head.startswith(start)), "") or text_kind(head)


def zip_kind(path: Path) -> str:
    """The kind of a zip; empty for torch.save's, and for a damaged one."""
    try:
        names = ZipFile(path).namelist()
    except (BadZipFile, OSError, ValueError, NotImplementedError):
        return ""
    ends = {name.partition("/")[2] for name in names} | set(names)
    save = "torch.save(net.state_dict(), 'net.pth')"
    if "constants.pkl" in ends:
        own = "of a network of your own torch.onnx.export, and dlink-export takes the .onnx"
        return f"a TorchScript archive, not a checkpoint; net = torch.jit.load(...), then {save}; {own}"
    if ends & PROGRAM:
        return f"an exported program (.pt2), not a checkpoint; net = torch.export.load(...), then {save}"
    if "data.pkl" in ends:
        return ""
    inside = ", ".join(names[:MEMBERS]) + (f" and {len(names) - MEMBERS} more" if len(names) > MEMBERS else "")
    return (
        f"a zip of other files ({' '.join(inside.split())[:120] or 'none'}); unpack it, and name the checkpoint in it"
    )


def text_kind(head: bytes) -> str:
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < HEAD else "ignore")
    except UnicodeDecodeError:
        return ""
    if not TEXT.fullmatch(text):
        return ""
    words = " ".join(text.split())
    return f"a text file, not a checkpoint; it begins with {words[:40]!r}: name the file that training saved"
