"""The best that a user can make of PyTorch on a processor, for a comparison that is no straw man.

One image becomes one mask, as in dlink: uint8 pixels, the Spec's preparation and views, their mean, the threshold. The
network is in eval mode, channels last, under inference_mode. Which ways are fastest depends on the processor and on
PyTorch, so they are tried, one view at a time: float32 and bfloat16 (autocast, where oneDNN has it), each as it is
(eager) and by torch.compile with freezing (weights folded and laid out for the processor). The fastest of these is
tried with all views in one batch, too; the others are not. All are warmed up first. torch.compile needs a C++ compiler;
without one its ways are left out, with the reason. `torch_threads` gives PyTorch its threads.

Norms are folded into the convolutions beforehand. That is faster, and freezing (PyTorch 2.13) folds the norm behind a
transposed convolution of as many input as output channels along the wrong axis, which draws other roads.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlink.bench.torch_views import torch_look, torch_unlook
from dlink.nets.folding import fold_norms
from dlink.runtime.spec import Spec
from dlink.runtime.views import BY_COUNT

Image = NDArray[np.uint8]
Call = Callable[[Image], NDArray[np.uint8]]
TRIED = 3  # calls of each way, of which the median counts
SHOWN = 160  # characters of a compiler's message


@dataclass(frozen=True)
class Way:
    """One way to run a network by PyTorch."""

    half: bool  # autocast to bfloat16
    compiled: bool
    batched: bool  # all views at once

    def __str__(self) -> str:
        return ", ".join(
            (
                "bfloat16 (autocast)" if self.half else "float32",
                "torch.compile with freezing" if self.compiled else "eager",
                "views in one batch" if self.batched else "one view at a time",
            )
        )


@dataclass(frozen=True)
class Best:
    """The fastest way for a number of views."""

    way: Way
    call: Call
    tried: dict[str, float]  # seconds of each way
    left_out: tuple[str, ...]  # ways that did not run, with the reason

    def to_json(self) -> dict[str, Any]:
        return {"way": asdict(self.way), "tried": self.tried, "left_out": list(self.left_out)}


def best_torch(net: nn.Module, spec: Spec, views: int, image: Image, say: Callable[[str], object]) -> Best:
    """Try the ways on an image of one tile. `say` is told each way's name before it is tried."""
    net = fold_norms(net) if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()) else net
    found: dict[Way, tuple[float, Call]] = {}
    left_out: list[str] = []

    def try_out(way: Way) -> None:
        say(str(way))
        try:
            call = call_of(net, spec, views, way)
            found[way] = seconds_of(call, image), call
        except RuntimeError as e:  # torch.compile without a compiler, or of a Python that it does not know
            left_out.append(f"{way}: {first_line(e)}")

    for compiled in (False, True):
        for half in (False, True) if has_bfloat16() else (False,):
            try_out(Way(half, compiled, batched=False))
    if views > 1:
        try_out(Way(fastest(found).half, fastest(found).compiled, batched=True))
    best = fastest(found)
    return Best(best, found[best][1], {str(way): seconds for way, (seconds, _) in found.items()}, tuple(left_out))


def fastest(found: dict[Way, tuple[float, Call]]) -> Way:
    return min(found, key=lambda way: found[way][0])


def seconds_of(call: Call, image: Image) -> float:
    """The median of a few calls after a warm-up of two, which compiles."""
    times = []
    for turn in range(-2, TRIED):
        begun = time.perf_counter()
        call(image)
        if turn >= 0:
            times.append(time.perf_counter() - begun)
    return median(times)


def has_bfloat16() -> bool:
    """Whether oneDNN computes bfloat16 here. Without instructions for it, it is slow, which the trial shows."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:SHOWN]


def call_of(net: nn.Module, spec: Spec, views: int, way: Way) -> Call:
    """RGB uint8 (S, S, C) -> the mask, uint8 (S, S)."""
    net = net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run: Callable[[torch.Tensor], torch.Tensor] = torch.compile(net, dynamic=False) if way.compiled else net
    scale, shift = (torch.tensor(values)[:, None, None] for values in (spec.scale, spec.shift))
    order = torch.arange(len(spec.bands))[spec.order] if isinstance(spec.order, list) else None
    chosen = BY_COUNT[views]
    around = freezing if way.compiled else nullcontext

    def mask(image: Image) -> NDArray[np.uint8]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=way.half), around():
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
            pixels = pixels.flip(1) if order is None and spec.channels == "BGR" else pixels
            pixels = pixels if order is None else pixels[:, order]
            x = pixels.float() * scale + shift
            seen = [torch_look(x, view) for view in chosen]
            batches = [torch.cat(seen)] if way.batched else seen
            laid_out = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
            prob = torch.cat([run(batch)[:, 0].float() for batch in laid_out])
            mean = torch.stack([torch_unlook(p, view) for p, view in zip(prob, chosen, strict=True)]).mean(0)
            found: NDArray[np.uint8] = ((mean > spec.threshold) * 255).to(torch.uint8).numpy()
        return found

    return mask


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """PyTorch with so many threads, whatever OMP_NUM_THREADS says; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def freezing() -> Iterator[None]:
    """Inductor's freezing, which counts while a network is compiled: at its first call."""
    from torch._inductor import config

    with config.patch(freezing=True):
        yield
