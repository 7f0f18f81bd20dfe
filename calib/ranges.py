"""The ranges of a network's tensors: gathered once, kept as JSON, reusable for the same file.

{"format": 1,
 "onnx_sha256": "...",                       of the file that was calibrated; no other file may use the ranges
 "tiles": 32, "tiles_sha256": "...",         the tiles that were run
 "views": true,                              true: through the eight views in turn; false: unturned
 "tensors": {"<ONNX name>": {
    "peak": [1.25, ...], "mean": [...],      largest |value| and mean of each channel
    "limit": {"entropy": 3.1, "percentile": 2.9, "mse": 3.4, "max": 5.0}}}}   largest |value| kept, after rescaling
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlink.calib.limits import METHODS
from dlink.calib.network import Network
from dlink.calib.observe import Channels, Counts, Inputs, count, see
from dlink.calib.rescale import factors
from dlink.calib.sample import Sample
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing
from dlink.runtime.progress import Tick

FORMAT = 1
DIGITS = 7  # significant digits


@dataclass(frozen=True)
class TensorRange:
    """The range of one tensor."""

    peak: tuple[float, ...]
    mean: tuple[float, ...]
    limit: dict[str, float]


@dataclass(frozen=True)
class Ranges:
    """The ranges of a network's tensors on a sample of tiles."""

    onnx_sha256: str
    tiles: int
    tiles_sha256: str
    views: bool
    tensors: dict[str, TensorRange]

    def factors(self, graph: Network) -> dict[str, Channels]:
        """The factors of the tensors' channels for rescale.py."""
        return factors(graph, {name: np.array(t.peak) for name, t in self.tensors.items()})

    def means(self, graph: Network) -> dict[str, Channels]:
        """The mean of each channel after rescaling."""
        factor = self.factors(graph)
        return {name: np.array(t.mean) * factor.get(name, 1.0) for name, t in self.tensors.items()}

    def limits(self, method: str) -> dict[str, float]:
        """The largest |value| of each tensor that int8 keeps, after rescaling."""
        return {name: t.limit[method] for name, t in self.tensors.items()}

    def write(self, path: Path) -> None:
        with replacing(path) as part:
            part.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path, graph: Network) -> "Ranges":
        """Read the ranges in a file. Raise BadInput if they belong to another network."""
        again = "delete it, or name another file, to gather the ranges again"
        try:
            values = json.loads(path.read_text())
            if (format := values.pop("format", None)) != FORMAT:
                raise BadInput(f"{path}: has ranges of format {format}, and this dlink reads {FORMAT}; {again}")
            tensors = {name: TensorRange(**t) for name, t in values.pop("tensors").items()}
            ranges = cls(**values, tensors=tensors)
        except (ValueError, TypeError, AttributeError, KeyError) as e:
            if isinstance(e, BadInput):
                raise
            raise BadInput(f"{path}: not a file of ranges, or a damaged one: {e}; {again}") from e
        if ranges.onnx_sha256 != graph.mark.sha256:
            raise BadInput(
                f"{path}: ranges of another ONNX file (SHA-256 {ranges.onnx_sha256[:12]}, this one is "
                f"{graph.mark.sha256[:12]}); {again}"
            )
        return ranges


def gather(graph: Network, sample: Sample, views: bool, tick: Tick) -> Ranges:
    """Run the network on a sample's tiles twice: for channels' peaks, then for histograms after rescaling."""
    inputs = Inputs(graph.spec, sample, views)
    total = 2 * len(inputs)
    seen = see(graph, inputs, lambda done, _, words: tick(done, total, words))
    peaks = {name: np.array(rounded(s.peak)) for name, s in seen.items()}
    factor = factors(graph, peaks)
    counts = {name: Counts.of(peak, factor.get(name, np.ones(len(peak)))) for name, peak in peaks.items()}
    count(graph, inputs, counts, lambda done, _, words: tick(len(inputs) + done, total, words))
    tensors = {
        name: TensorRange(
            peak=rounded(s.peak),
            mean=rounded(s.total / len(inputs)),
            # Pixels have all values about equally often, so clipping them gains nothing.
            limit={method: limit_of(counts[name], "max" if name == graph.input else method) for method in METHODS},
        )
        for name, s in seen.items()
    }
    return Ranges(graph.mark.sha256, len(sample.tiles), sample.sha256, views, tensors)


def limit_of(counts: Counts, method: str) -> float:
    """The limit by a method. A tensor that is zero everywhere gets 1, because any limit is right."""
    return rounded(np.array([METHODS[method](counts.bins, counts.peak) if counts.peak > 0 else 1.0]))[0]


def rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{v:.{DIGITS}g}") for v in values)
