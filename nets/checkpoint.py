"""Reads and writes checkpoints: the authors' `.th` files, and other files that hold a state_dict.

A checkpoint is a state_dict, bare or in nested dictionaries, its keys with or without a prefix (`search.py` finds it),
in float32, float16, bfloat16 or float64, as `torch.save` writes it (both of its formats; `.th`, `.pth`, `.pt`, ...) or
as safetensors. The keys and shapes tell which network it holds, and how many channels an image has. Nothing in a
checkpoint is ever run (content.py).

Memory for a network is allocated only after the file is known to hold all of it: shapes are compared with a network on
the meta device, and tensors that claim more bytes than the file has are refused.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlink.nets.content import load
from dlink.nets.keys import COUNTER, keys_of, named, outline_of, overlap, renamed
from dlink.nets.network import RoadNet
from dlink.nets.search import ALIKE, NESTS, find, is_count
from dlink.nets.slim import slim_of, smallest
from dlink.nets.zoo import ARCHS, arch_of, build
from dlink.runtime.errors import BadInput, BadModel
from dlink.runtime.files import file_sha256
from dlink.runtime.spec import MOST_BANDS

log = logging.getLogger(__name__)

HYBRID = "pplinknet34-psp64-hdc"
CLASSES = 2  # background and road, in networks with a softmax
OWN = "a network of your own comes in by torch.onnx.export, and then dlink-export net.onnx"
CONV = 4  # dimensions of a convolution's weight
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """A network with trained weights, in float32 and evaluation mode, and where it came from."""

    net: RoadNet
    arch: str
    width: float
    sha256: str  # of the file
    notes: tuple[str, ...] = ()  # what of the file was taken and what was left out, a line each
    key: str = ""  # where the network is in the file, if --key chose it
    road: int | None = None  # the class that is road, of two
    slim: float = 1.0  # share of that width's multiply-adds that the network has, see slim.py

    @property
    def facts(self) -> dict[str, Any]:
        """What a Spec says of the checkpoint."""
        return {
            "arch": self.arch,
            "width": self.width,
            "slim": self.slim,
            "checkpoint_sha256": self.sha256,
            "checkpoint_key": self.key,
            "checkpoint_class": self.road,
        }


def read_checkpoint(
    path: Path, arch: str | None = None, *, key: str | None = None, road: int | None = None
) -> Checkpoint:
    """Read a checkpoint file. `arch` overrides the network that its keys name, but not the width.

    key: which of a file's networks is read, by the dictionary or the prefix that has it.
    road: the class that is road, of a network with two classes; the last if None.
    """
    state, notes, taken = network_state(path, key)
    hybrid = any(key.startswith("psp.") for key in state)
    state = renamed(state)
    found, width, channels = recognise(state, path)
    arch = arch or (HYBRID if hybrid else found)
    if head := two_classes(smallest(arch, channels), state):
        road = 1 if road is None else road
        state, note = one_logit(state, head, road, path)
        notes += (note,)
    elif road is not None:
        raise BadInput(f"{path}: --class {road}: the network's last layer has one class; leave --class out")
    slim = slim_of(arch, channels, state, f"{path}: as {arch}")
    width = slim.width if slim else width * ARCHS[found].planes / arch_of(arch).planes
    what = f"{path}: as {arch}" + (f" of width {width:g}" if width != 1 else "")
    if slim is None:
        check_fit(outline_of(arch, width, channels, what), state, what)
    check_floats(state, what)
    net = slim.net if slim else build(arch, width, channels)
    fill(net, state, what)
    share = slim.share if slim else 1.0
    return Checkpoint(net.eval(), arch, width, file_sha256(path), notes, taken if key else "", road, share)


def network_state(path: Path, key: str | None) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """The tensors of the network in a checkpoint by plain name, notes for the user, and where it is in the file."""
    loaded = load(path)
    place, notes = find(loaded, path, key)
    state = plain_tensors(place.tensors if place else outermost(loaded), path)
    return state, notes, place.name if place else ""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint of any network by plain name (without `module.`), without counters."""
    return plain_tensors(outermost(load(path)), path)


def outermost(loaded: Any) -> Any:
    """What lies under the usual keys; the content itself if it has none of them."""
    for nest in NESTS:
        if isinstance(loaded, dict) and isinstance(loaded.get(nest), dict):
            loaded = loaded[nest]
    return loaded


def plain_tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a state_dict by plain name. BadModel if it is not a state_dict of plain tensors."""
    if not isinstance(loaded, dict) or not loaded:
        raise BadModel(f"{path}: holds a {type(loaded).__name__}, not a state_dict; save `net.state_dict()`")
    strangers = [str(k) for k, v in loaded.items() if not isinstance(v, Tensor)]
    if strangers:
        raise BadModel(f"{path}: not a state_dict: {named(strangers)} is not a tensor; save `net.state_dict()`")
    if nameless := [repr(k) for k in loaded if not isinstance(k, str)]:
        raise BadModel(f"{path}: not a state_dict: {named(nameless)} is not a name; save `net.state_dict()`")
    plain = {key.removeprefix("module."): value for key, value in loaded.items()}
    state = {key: value for key, value in plain.items() if not (key.endswith(COUNTER) or is_count(key))}
    check_form(state, path)
    return state


def check_form(state: dict[str, Tensor], path: Path) -> None:
    """Raise BadModel for tensors that are not plain numbers in memory, or claim more bytes than the file has."""
    for key, value in state.items():
        if fault := foreign(value):
            raise BadModel(f"{path}: {key} {fault}")
    claimed, held = sum(v.nbytes for v in state.values()), path.stat().st_size
    if claimed > held:
        most = max(state, key=lambda k: state[k].nbytes)
        raise BadModel(
            f"{path}: its tensors claim {claimed} bytes of a file of {held}, {most} {tuple(state[most].shape)} the "
            f"most; they are views of one another: save {{k: v.clone() for k, v in net.state_dict().items()}}"
        )


def foreign(value: Tensor) -> str:
    """Why a tensor is not plain numbers in memory, and what to do; empty if it is."""
    if value.is_nested:
        return "is a nested tensor; save `net.state_dict()` with tensors of one shape each"
    if value.is_quantized:
        return f"is quantised ({kind(value)}); save the network of before, or {{k: v.dequantize()}}"
    if value.layout != torch.strided:
        return f"is sparse ({str(value.layout).removeprefix('torch.')}); save {{k: v.to_dense()}}"
    if value.device.type != "cpu":
        return f"has no values (it is on the device {value.device.type}); save the network once its weights are loaded"
    return ""


def kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def check_floats(state: dict[str, Tensor], what: str) -> None:
    """Raise BadModel for weights that are not floating-point numbers of 16 bits or more."""
    if strange := [k for k, v in state.items() if v.dtype not in FLOATS]:
        raise BadModel(
            f"{what}: {kind(state[strange[0]])} in {named(strange)}; weights are float32, float16, bfloat16 or "
            f"float64: save those that the network was trained with"
        )


def recognise(state: dict[str, Tensor], path: Path) -> tuple[str, float, int]:
    """Name, width and input channels of the network that shares most keys with a checkpoint."""
    shared = {name: overlap(keys_of(name), state.keys()) for name in ARCHS}
    best = max(shared, key=lambda name: shared[name])  # the first of equals
    first = state.get(ARCHS[best].first)
    if shared[best] < ALIKE or first is None or first.ndim != CONV:
        missing = f"`{ARCHS[best].first}` is missing" if first is None else f"the closest is {best}"
        lacks = named(sorted(keys_of(best) - state.keys()))
        raise BadModel(
            f"{path}: no network that dlink knows: {missing} among {len(state)} keys ({named(sorted(state))}); the "
            f"nearest, {best}, also has {lacks}; --arch names one of {', '.join(ARCHS)}; {OWN}"
        )
    if not 1 <= first.shape[1] <= MOST_BANDS:
        raise BadModel(
            f"{path}: {ARCHS[best].first} takes {first.shape[1]} channels; dlink runs networks of 1 to {MOST_BANDS}"
        )
    return best, first.shape[0] / ARCHS[best].planes, first.shape[1]


def check_fit(net: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Raise BadModel unless the checkpoint has exactly the network's keys and shapes."""
    wanted = {k: v for k, v in net.state_dict().items() if not k.endswith(COUNTER)}
    missing = [k for k in wanted if k not in state]
    unexpected = [k for k in state if k not in wanted]
    misshapen = [
        f"{k} {tuple(state[k].shape)} for {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
    if any(keys for _, keys in problems):
        words = "; ".join(f"{len(keys)} {word}: {named(keys)}" for word, keys in problems if keys)
        raise BadModel(f"{what}: {words}; is it another network (--arch)?")
    check_floats(state, what)


def two_classes(net: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """The keys of the last layer, if the checkpoint has two classes there and the network one; else none."""
    last = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)][-1]
    wanted = {k: v.shape for k, v in net.state_dict().items() if k.startswith(f"{last}.")}
    twice = all(
        k in state and (state[k].shape[0], *state[k].shape[2:]) == (CLASSES, *shape[2:]) for k, shape in wanted.items()
    )
    return list(wanted) if twice and all(state[k].dtype in FLOATS for k in wanted) else []


def one_logit(state: dict[str, Tensor], head: list[str], road: int, path: Path) -> tuple[dict[str, Tensor], str]:
    """The same network with one logit, and a note. A softmax over two classes is the sigmoid of their difference."""
    if road not in range(CLASSES):
        raise BadInput(f"{path}: --class {road}: the network's two classes are 0 and 1")
    difference = {k: (state[k][road].double() - state[k][1 - road].double()).float()[None] for k in head}
    note = (
        f"{path}: class {road} of two is taken for road, and its softmax is written as the sigmoid of the difference; "
        f"--class {1 - road} takes the other"
    )
    return state | difference, note


def fill(net: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Copy tensors that fit into the network."""
    check_finite(state, what)
    net.load_state_dict(state, strict=False)  # the copy converts to float32


def check_finite(state: dict[str, Tensor], what: str) -> None:
    """Raise BadModel for weights that are not finite in float32, except variances that overflowed in float16."""
    dead = [k for k, v in state.items() if k.endswith("running_var") and torch.isposinf(v).any()]
    rest = {k: v for k, v in state.items() if k not in dead}
    advice = "the training diverged, take an earlier checkpoint"
    if broken := [k for k, v in rest.items() if not torch.isfinite(v).all()]:
        raise BadModel(f"{what}: not finite: {named(broken)}; {advice}")
    if large := [k for k, v in rest.items() if v.dtype == torch.float64 and not torch.isfinite(v.float()).all()]:
        raise BadModel(f"{what}: too large for float32: {named(large)}; {advice}")
    if dead:  # a variance beyond float16's 65504 became infinite; PyTorch then gives the norm's bias
        log.warning(
            "%s: infinite variance in %s: some of its channels are constant, in PyTorch too; nothing has to be done",
            what, named(dead),
        )  # fmt: skip


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
