"""Loads what a checkpoint file holds. No code of the file runs.

PyTorch's reader makes tensors and plain containers. What training scripts commonly store beside the weights (NumPy's
arrays, paths, dates, the arguments, a framework's records) is read as stand-ins, by name. Any other name is refused.
"""

import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from safetensors.torch import load_file
from torch.serialization import safe_globals

from dlink.nets.foreign import another_kind
from dlink.runtime.errors import BadModel

NO_PICKLE = (pickle.UnpicklingError, LookupError, EOFError, UnicodeDecodeError)  # of bytes that are none
REFUSED = re.compile("GLOBAL|Unsupported (global|class)|unrecognized function|Can only (create|build)")
LONGEST_NAME = 80  # of a foreign class in a message


class Ignored:
    """Stands for a value beside the weights that no network needs. Its content is dropped, and no foreign code runs."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class Dictionary:
    """Stands for other classes of dictionaries, so that what they hold is searched. PyTorch fills none of ours."""

    def __new__(cls, *args: object) -> "OrderedDict[Any, Any]":  # type: ignore[misc]
        return OrderedDict()


class List:
    """Stands for other classes of lists."""

    def __new__(cls, *args: object) -> list[Any]:  # type: ignore[misc]
        return []


def within(modules: str, names: str) -> list[str]:
    """All these names in each of these modules."""
    return [f"{module}.{name}" for module in modules.split() for name in names.split()]


# Versions of a library have their classes in modules of different names.
IGNORED = [
    *within("numpy.core.multiarray numpy._core.multiarray", "scalar _reconstruct"),
    *within("numpy", "dtype ndarray"),
    *within("pathlib pathlib._local", "Path PosixPath WindowsPath PurePosixPath PureWindowsPath"),
    *within("datetime", "datetime date time timedelta timezone"),
    *within("builtins", "int float str bool bytes list dict tuple frozenset range slice object type getattr"),
    *within("argparse", "Namespace"),
    *within("types", "SimpleNamespace"),
    *within("functools", "partial"),
    *within("typing", "Any"),
    *within("uuid", "UUID"),
    *within("decimal", "Decimal"),
    *within("copyreg", "_reconstructor"),
    *within("torch.torch_version", "TorchVersion"),
    *within("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    *within("pytorch_lightning.callbacks.early_stopping", "EarlyStopping"),
    *within("mmengine.logging.history_buffer", "HistoryBuffer"),
    *within("omegaconf.dictconfig", "DictConfig"),
    *within("omegaconf.listconfig", "ListConfig"),
    *within("omegaconf.base", "ContainerMetadata Metadata"),
    *within("omegaconf.nodes", "AnyNode StringNode IntegerNode FloatNode BooleanNode"),
]
DICTIONARIES = [
    "collections.defaultdict",
    *within("pytorch_lightning.utilities.parsing lightning.pytorch.utilities.parsing", "AttributeDict"),
    *within("lightning_fabric.utilities.data lightning.fabric.utilities.data", "AttributeDict"),
    *within("mmcv.utils.config mmengine.config.config", "ConfigDict"),
    *within("addict addict.addict", "Dict"),
    *within("easydict", "EasyDict"),
    *within("yacs.config", "CfgNode"),
]
LISTS = ["collections.deque"]
STAND_INS: list[Any] = [
    (stand_in, name)
    for stand_in, names in ((Ignored, IGNORED), (Dictionary, DICTIONARIES), (List, LISTS))
    for name in names
]


def load(path: Path) -> Any:
    """The content of a file that holds only tensors, plain containers of them and what is known beside them."""
    path.open("rb").close()  # a file that cannot be opened raises the system's own OSError
    if words := another_kind(path):
        raise BadModel(f"{path}: {words}")
    check_packing(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; the content is checked key by key
            with safe_globals(STAND_INS):  # for this call; the process's list stays
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a damaged file can raise any exception
        if isinstance(e, pickle.UnpicklingError) and REFUSED.search(str(e)):
            raise BadModel(
                f"{path}: refused, its pickle holds more than tensors and could run code; "
                f"save `net.state_dict()` alone, or as safetensors; or torch.onnx.export the net{name_in(str(e))}"
            ) from e
        reason = "it can't be read as what torch.save writes" if isinstance(e, NO_PICKLE) else first_line(e)
        raise BadModel(f"{path}: not a checkpoint, or a damaged one; {reason}") from e


def name_in(message: str) -> str:
    """What a pickle names, from PyTorch's message; empty if the message names nothing."""
    found = re.search(r"GLOBAL ([\w.]+)", message)
    return f" (it names {found[1][:LONGEST_NAME]})" if found else ""


def check_packing(path: Path) -> None:
    """Raise BadModel for a compressed zip: torch.save does not compress, and unpacking could take any memory."""
    try:
        held = sum(record.file_size for record in ZipFile(path).infolist())
    except (BadZipFile, OSError, ValueError):  # another format, or a damaged file
        return
    if held > path.stat().st_size:
        raise BadModel(f"{path}: a compressed zip of {held} bytes; load it and save `net.state_dict()` by torch.save")


def first_line(e: BaseException) -> str:
    return (str(e) or type(e).__name__).splitlines()[0][:200]
