"""Checkpoints: the authors' `.th` files and what else people keep state_dicts in.

A checkpoint is a state_dict, bare or under `state_dict` (or `model`), its keys with or without DataParallel's
`module.`, in float32 or float16, as `torch.save` writes it (both of its formats; `.th`, `.pth`, `.pt`, ...) or as
safetensors. Which network it holds is read from its keys and shapes. Nothing in a checkpoint is ever run: a pickle
that would do more than make tensors is refused.
"""

import logging
import pickle
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dlink.nets.linknet import LinkNet
from dlink.nets.zoo import ARCHS, PLANES, build
from dlink.trt_runtime.errors import BadInput, BadModel
from dlink.trt_runtime.files import file_sha256

log = logging.getLogger(__name__)

NESTS = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights among other things
SHOWN = 4  # keys named in a message before it says how many more


@dataclass(frozen=True)
class Checkpoint:
    """A network with trained weights, in float32 and evaluation mode, and what is known of where it came from."""

    net: LinkNet
    arch: str
    width: float
    sha256: str  # of the file


def read_checkpoint(path: Path, arch: str | None = None) -> Checkpoint:
    """Read a checkpoint file. `arch` overrides what its keys say, except for the width."""
    state = read_state(path)
    found, width = recognise(state, path)
    arch = arch or found
    net = build(arch, width)
    fill(net, state, f"{path}: as {arch}" + (f" of width {width:g}" if width != 1 else ""))
    return Checkpoint(net.eval(), arch, width, file_sha256(path))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their plain names (no `module.`, no `num_batches_tracked`)."""
    loaded = load(path)
    for nest in NESTS:
        if isinstance(loaded, dict) and isinstance(loaded.get(nest), dict):
            loaded = loaded[nest]
    if not isinstance(loaded, dict) or not loaded:
        raise BadModel(f"{path}: holds a {type(loaded).__name__}, not a state_dict; save `net.state_dict()`")
    strangers = [str(k) for k, v in loaded.items() if not isinstance(v, Tensor)]
    if strangers:
        raise BadModel(f"{path}: not a state_dict: {named(strangers)} is no tensor; save `net.state_dict()`")
    plain = {key.removeprefix("module."): value for key, value in loaded.items()}
    return {key: value for key, value in plain.items() if not key.endswith("num_batches_tracked")}


def load(path: Path) -> Any:
    """What a file holds, if it holds tensors and plain containers of them."""
    path.open("rb").close()  # what the system has against it is said in its own words
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what can be read is checked key by key
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a damaged file raises whatever its reader stumbles on
        if isinstance(e, pickle.UnpicklingError) and re.search("GLOBAL|Unsupported (global|class)", str(e)):
            raise BadModel(
                f"{path}: refused, its pickle holds more than tensors and could run code; "
                f"save `net.state_dict()` alone, or as safetensors"
            ) from e
        said = "its pickle can't be read" if isinstance(e, pickle.UnpicklingError) else first_line(e)
        raise BadModel(f"{path}: not a checkpoint, or a damaged one; {said}") from e


def recognise(state: dict[str, Tensor], path: Path) -> tuple[str, float]:
    """Name and width of the network whose keys and shapes these are."""
    stem = state.get("firstconv.weight")
    if stem is None or stem.ndim != 4:
        raise BadModel(
            f"{path}: no network that dlink knows: `firstconv.weight` is missing among {len(state)} keys "
            f"({named(sorted(state))}); there are {', '.join(ARCHS)}"
        )
    blocks = tuple(len({k.split(".")[1] for k in state if k.startswith(f"encoder{i}.")}) for i in range(1, 5))
    shape = tuple(n for n in blocks if n), "encoder1.0.conv3.weight" in state
    dilations = len({k.split(".")[1] for k in state if k.startswith("dblock.dilate")})
    alike = [name for name, a in ARCHS.items() if (a.blocks, a.block.expansion == 4) == shape]
    alike = [name for name in alike if bool(ARCHS[name].dilations) == bool(dilations)] or alike
    if not alike:
        raise BadModel(
            f"{path}: no network that dlink knows: its encoder has {shape[0]} "
            f"{'bottleneck' if shape[1] else 'basic'} blocks; --arch names one of {', '.join(ARCHS)}"
        )
    return alike[0], stem.shape[0] / PLANES


def fill(net: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Put the tensors into the network. Every tensor must have its place and every place its tensor."""
    wanted = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    missing = [k for k in wanted if k not in state]
    unexpected = [k for k in state if k not in wanted]
    misshapen = [
        f"{k} {tuple(state[k].shape)} for {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
    if any(keys for _, keys in problems):
        said = "; ".join(f"{len(keys)} {word}: {named(keys)}" for word, keys in problems if keys)
        raise BadModel(f"{what}: {said}; is it another network (--arch)?")
    dead = [k for k, v in state.items() if k.endswith("running_var") and torch.isposinf(v).any()]
    broken = [k for k, v in state.items() if k not in dead and not torch.isfinite(v).all()]
    if broken:
        raise BadModel(f"{what}: not finite: {named(broken)}; the training diverged, take an earlier checkpoint")
    if dead:  # a variance beyond float16's 65504, lost when the file was rounded: PyTorch gives the norm's bias there
        log.warning("%s: infinite variance in %s: constant there, as in PyTorch", what, named(dead))
    net.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)


def write_checkpoint(net: nn.Module, path: Path, *, half: bool = False) -> None:
    """Write the authors' format (`module.` keys). Not atomic: see `replacing`.

    `half` stores the convolutions' weights in float16. Norms stay float32: variances grow beyond float16's 65504.
    """
    state = {f"module.{k}": v.detach().cpu() for k, v in net.state_dict().items()}
    if half:
        state = {k: v.half() if v.ndim > 1 else v for k, v in state.items()}
        if lost := [k for k, v in state.items() if v.ndim > 1 and not torch.isfinite(v).all()]:
            raise BadInput(f"{path}: values too large for float16 in {named(lost)}; write float32")
    torch.save(state, path)


def named(keys: list[str]) -> str:
    rest = len(keys) - SHOWN
    return ", ".join(keys[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def first_line(e: BaseException) -> str:
    return (str(e) or type(e).__name__).splitlines()[0][:200]
