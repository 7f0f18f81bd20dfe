"""The seconds that OpenVINO spends in each layer of an ONNX file, so that two files can be compared layer by layer."""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlink.openvino_runtime.executed import text
from dlink.openvino_runtime.openvino_backend import compile, read
from dlink.openvino_runtime.quiet_openvino import openvino
from dlink.runtime.backend import HostBackend, Probs

Layer: TypeAlias = tuple[str, ...]  # the names of the file's layers in it, its kind, how it is computed, output types
FACTS = ("layerType", "primitiveType", "outputPrecisions")
COUNTED = re.compile(r"_\d+")  # in names that OpenVINO makes, which differ from one reading of a file to the next


class Timed:
    """A file's network, whose layers are timed as it runs.

    Args:
        path: An ONNX file that dlink wrote.
        threads: None: all.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        model, spec = read(path)
        compiled = compile(model, spec, threads, timed=True)
        self.least: dict[str, float] = {}  # seconds by name
        self.layers = layers_of(compiled)
        self.backend = HostBackend(self.network(compiled), spec, engine="OpenVINO", executed={})

    def network(self, compiled: openvino.CompiledModel) -> Callable[[NDArray[np.float32]], Probs]:
        request = compiled.create_infer_request()

        def net(x: NDArray[np.float32]) -> Probs:
            prob: Probs = request.infer({0: x})[0]
            for each in request.profiling_info:
                if each.node_name not in self.layers:
                    continue
                seconds = each.real_time.total_seconds()
                self.least[each.node_name] = min(seconds, self.least.get(each.node_name, seconds))
            return prob[:, 0]

        return net

    @property
    def seconds(self) -> dict[Layer, float]:
        """The least seconds of each layer over all runs so far."""
        found: dict[Layer, float] = defaultdict(float)
        for name, seconds in self.least.items():
            found[self.layers[name]] += seconds
        return dict(found)


def layers_of(compiled: openvino.CompiledModel) -> dict[str, Layer]:
    """The layers that are executed, by OpenVINO's names."""
    layers = {}
    for op in compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        names = text(info, "originalLayersNames").split(",")
        own = sorted(name if "/" in name else COUNTED.sub("", name) for name in names)
        layers[op.get_friendly_name()] = (",".join(own), *(text(info, fact) for fact in FACTS))
    return layers


def slower(first: dict[Layer, float], second: dict[Layer, float]) -> float:
    """Seconds by which the second is slower. Layers that both compute alike are left out: only noise parts them."""
    return sum(second[each] for each in second.keys() - first.keys()) - sum(
        first[each] for each in first.keys() - second.keys()
    )
