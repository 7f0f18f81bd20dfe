"""A model beside PyTorch: the authors' eager procedure, and the best that a user can make of PyTorch, in turn."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlink.bench.authors import eight_view_sum, predict
from dlink.bench.best_torch import best_torch
from dlink.bench.headline import why_no_headline
from dlink.bench.opened import check_processor
from dlink.bench.turns import in_turn
from dlink.bench.watch.watch import Sources, Watch
from dlink.nets.checkpoint import read_checkpoint
from dlink.nets.embedded import EMBEDDED
from dlink.nets.zoo import ARCHS, build
from dlink.runtime.errors import BadInput
from dlink.runtime.segmenter import Segmenter, Views
from dlink.runtime.spec import COLOURS, Spec

Image = NDArray[np.uint8]


def network_of(model: Path | None, spec: Spec, option: str) -> nn.Module:
    """The checkpoint's network; of an ONNX file or a plan the same network with fresh weights, which is as fast."""
    if model is None or model.suffix not in (".onnx", ".plan"):
        return read_checkpoint(model or EMBEDDED).net
    if spec.arch not in ARCHS:
        raise BadInput(f"--baseline {option}: needs a network of dlink's list, and {model} is {spec.arch}")
    if spec.slim < 1:
        raise BadInput(f"--baseline {option}: {model} is slim; give the checkpoint that it was exported from")
    return build(spec.arch, spec.width, len(spec.bands)).eval()


def authors(net: nn.Module, views: int, image: Image) -> NDArray[np.float32]:
    """The authors' procedure for eight views; for one view the same steps."""
    return eight_view_sum(net, image) if views == 8 else predict(net, image[None, ..., ::-1])


def beside_best(
    model: Segmenter, net: nn.Module, image: Image, counts: Sequence[Views], rounds: int,
    say: Callable[[str], object],
) -> list[dict[str, Any]]:  # fmt: skip
    """For each number of views: ours, PyTorch's best and, for one and eight views, the authors' procedure, in turn."""
    check_processor(model)
    return [one_count(model, net, image, views, rounds, say) for views in counts if isinstance(views, int)]


def one_count(
    model: Segmenter, net: nn.Module, image: Image, views: int, rounds: int, say: Callable[[str], object]
) -> dict[str, Any]:
    best = best_torch(net, model.spec, views, image, say)
    version = f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    procedures: dict[str, Callable[[], object]] = {
        "dlink": partial(model.mask, image, views),
        f"best of {version}: {best.way}": partial(best.call, image),
    }
    if views in (1, 8) and model.spec.bands == COLOURS:
        procedures[f"authors' procedure by {version}: float32, eager"] = partial(authors, net, views, image)
    for procedure in procedures.values():
        procedure()  # the best way is warm already; the others are not
    with Watch(None, Sources()) as watch:
        turns = in_turn(procedures, views, rounds)
    why = [f"beside PyTorch, {reason}" for reason in why_no_headline(watch.conditions, [])]
    return {
        **turns.to_json(), **best.to_json(), "conditions": watch.conditions.to_json(), "no_headline": why,
    }  # fmt: skip
