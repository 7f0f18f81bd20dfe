"""A torch.export archive (.pt2) as an ONNX graph, and run by PyTorch.

The program is traced for one tile by the exporter that writes checkpoints' files too. An archive that would run code
when it is read is refused before PyTorch opens it (archive_safety.py).
"""

import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from dlink.export.archive_safety import check_archive
from dlink.export.onnx_file import OPSET
from dlink.onnx_graph.foreign import check_size
from dlink.runtime.errors import BadInput, BadModel

DIMENSIONS = 4


class Program(nn.Module):
    """An exported program with its outputs as a tuple."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.inner = program.module()
        self.inner.train = lambda mode=True: self.inner  # type: ignore[method-assign]  # its own refuses, and has no modes
        self.training = False

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(tree_leaves(self.inner(image)))


def read_archive(path: Path) -> ExportedProgram:
    """The program. Raise BadModel for a file that is none, and BadInput for one that takes other than one image."""
    check_archive(path)
    try:
        program = torch.export.load(path)
    except Exception as e:  # it raises what its readers raise
        reason = " ".join(str(e).split())[:160]
        raise BadModel(f"{path}: torch.export does not read it: {reason}; save it again with this PyTorch") from e
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise BadInput(f"{path}: has {len(inputs)} inputs; a network of one image has one")
    return program


def check_tile(path: Path, program: ExportedProgram, tile: int, channels: int) -> None:
    """Raise BadInput if the program takes no tile of this size."""
    value = next(n.meta["val"] for n in program.graph.nodes if n.name == program.graph_signature.user_inputs[0])
    shape = [size if isinstance(size, int) else 0 for size in value.shape]
    if len(shape) != DIMENSIONS or value.dtype != torch.float32 or shape[1] not in (0, channels):
        raise BadInput(
            f"{path}: its input is {str(value.dtype).removeprefix('torch.')} {list(value.shape)}; needed is float32 "
            f"N x {channels} x H x W"
        )
    if shape[0] > 1:
        raise BadInput(f"{path}: takes exactly {shape[0]} images at once; export it with one, or with a free batch")
    check_size(str(path), shape[2], shape[3], tile)


def onnx_of(path: Path, program: ExportedProgram, tile: int, channels: int) -> onnx.ModelProto:
    """The program's graph for one tile, with the outputs under their names in the program."""
    check_tile(path, program, tile, channels)
    data = BytesIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):  # PyTorch prints the graph that it fails on
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Program(program),
                (torch.zeros(1, channels, tile, tile),),
                data,  # type: ignore[arg-type]  # a file object works too
                opset_version=OPSET,
                input_names=["image"],
                output_names=[str(name) for name in program.graph_signature.user_outputs],
                dynamo=False,
            )
    except Exception as e:  # each kind of trouble has a class of its own
        reason = " ".join(str(e).split())[:200]
        raise BadInput(f"{path}: PyTorch does not write it as ONNX: {reason}; export it to ONNX yourself") from e
    return onnx.load_from_string(data.getvalue())


def running(program: ExportedProgram, output: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """One output of the program, run by PyTorch, as a function of NumPy arrays."""
    module, at = Program(program), list(map(str, program.graph_signature.user_outputs)).index(output)

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: Any = module(torch.from_numpy(x))[at].float().numpy()
        return np.asarray(found, np.float32)

    return run
