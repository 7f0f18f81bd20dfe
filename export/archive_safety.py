"""Refuses an archive of torch.export that would run code when PyTorch reads it.

`torch.export.load` trusts its file: it unpickles samples and constants, evaluates the sizes' expressions, and takes any
function of `torch` as an operator. So before it sees an archive, only known members may be in it, whatever is pickled
must be plain tensors, operators must be ATen's, and expressions may hold symbols, numbers and arithmetic alone. What is
checked follows PyTorch 2.10 to 2.13; take archives from people whom you trust.
"""

import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from dlink.runtime.errors import BadModel

CONFIG = re.compile(r"data/(weights|constants)/model_\1_config\.json")  # what an archive says of its tensors
PROGRAM, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
TENSOR = re.compile(r"(weight|tensor)_\d+")
STORED = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
PLAIN = re.compile(r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment")
TARGET = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!from_file)\w+\.\w+|torch\.sym_\w+|math\.(ceil|floor|trunc|sqrt)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_)"
)
# SymPy's and PyTorch's names in the expressions of sizes.
WORD = re.compile(
    "Symbol|Integer|Rational|Float|Mul|Add|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|ModularIndexing|CeilToInt"
    "|FloorToInt|TruncToInt|RoundToInt|IntTrueDiv|FloatTrueDiv|ToFloat|PowByNatural|FloatPow|CeilDiv|Identity|Where|Eq|Ne|Le|Lt|Ge|Gt|Equality"
    "|Unequality|LessThan|StrictLessThan|GreaterThan|StrictGreaterThan|And|Or|Not|BooleanTrue|BooleanFalse|oo|int_oo"
    "|positive|integer|nonnegative|negative|finite|real|precision|True|False|L|size|shape|not|and|or|min|max"
    r"|math\.(?:ceil|floor|trunc|sqrt)|torch\.sym_(?:float|int|max|min|not|sqrt)"
)
EVALUATED = ("expr_str", "guards_code")  # keys of texts that PyTorch evaluates
SYMBOL = re.compile(r"z?[su]\d+|zu?[fs]?\d+")
QUOTED = re.compile(r"'(\w*)'")
SIGNS = re.compile(r"[\w\s()\[\]+\-*/%,.='<>!]*")
NUMBER = re.compile(r"\d+(\.\d*)?(e[+-]?\d+)?")


def check_archive(path: Path) -> None:
    """Raise BadModel for an archive that holds more than a program of plain tensors."""
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            root = names[0].partition("/")[0] if names else ""
            if f"{root}/{PROGRAM}" not in names:
                raise BadModel(
                    f"{path}: not an archive of torch.export that this PyTorch writes; save it with torch.export.save"
                )
            # Of two members of one name PyTorch may read the other one.
            if len({name.lower() for name in names}) < len(names):
                raise refused(path, "it has two members of one name")
            for name in names:
                if not name.startswith(f"{root}/"):
                    raise refused(path, f"it has the member {name[:80]}")
                check_member(path, name.removeprefix(f"{root}/"), archive.read(name))
    except (BadZipFile, ValueError, OSError, RecursionError) as e:
        if isinstance(e, BadModel):
            raise
        raise BadModel(f"{path}: not an archive of torch.export, or a damaged one: {e}; save it again") from e


def check_member(path: Path, name: str, data: bytes) -> None:
    if CONFIG.fullmatch(name):
        for tensor, entry in json.loads(data)["config"].items():
            if entry.get("use_pickle") or not TENSOR.fullmatch(str(entry.get("path_name"))):
                raise refused(path, f"{tensor} is pickled")
    elif name == PROGRAM:
        check_program(path, json.loads(data))
    elif name == SAMPLES:
        try:
            torch.load(BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as e:  # of whatever a pickle may hold
            raise refused(path, f"{name} is more than tensors") from e
    elif not (PLAIN.fullmatch(name) or STORED.fullmatch(name)):
        raise refused(path, f"it has the member {name[:80]}")


def check_program(path: Path, program: dict[str, Any]) -> None:
    """Raise BadModel for an operator that is not ATen's, or an expression that is no arithmetic of sizes."""
    for key, text in texts(program):
        if key == "target" and re.search("[.#]", text) and not TARGET.fullmatch(text):
            raise refused(path, f"it calls {text[:80]}")
        if key in EVALUATED and not arithmetic(text):
            raise refused(path, f"a size is {text[:80]}")
    for text, limits in program.get("range_constraints", {}).items():
        if not arithmetic(text) or any(isinstance(limit, str | list | dict) for limit in limits.values()):
            raise refused(path, f"a size is {text[:80]} within {limits}"[:160])


def texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts of a JSON value, each with the key that it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if key in EVALUATED:  # an expression stands alone or in a list
                yield key, f"{{{name}: {inner}}}"
            yield from texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, key)
    elif isinstance(value, str):
        yield key, value


def arithmetic(text: str) -> bool:
    """Whether an expression has only symbols, numbers and known functions. Names in quotes may be any word."""
    if not SIGNS.fullmatch(text) or "__" in text:
        return False
    words = re.findall(r"(?:math|torch)\.\w+|\d[\w.]*(?:(?<=e)-\d+)?|\w+", QUOTED.sub("", text))
    return all(WORD.fullmatch(word) or SYMBOL.fullmatch(word) or NUMBER.fullmatch(word) for word in words)


def refused(path: Path, why: str) -> BadModel:
    return BadModel(f"{path}: {why}, and reading it could run code; save a program of plain tensors, or give ONNX")
