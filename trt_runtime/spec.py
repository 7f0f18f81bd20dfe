"""The contract between a trained network and whatever runs it: written once at export, carried by every file after.

In an ONNX file it is JSON under the metadata key `dlink.spec`: the fields of `Spec` and `"format": 1`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlink.trt_runtime.errors import BadInput, BadModel
from dlink.trt_runtime.views import ALL, check_views

ONNX_KEY = "dlink.spec"
INT8_KEY = "dlink.int8"  # JSON of an INT8 file: how it was made, and "layers", a row for each; calib/calibrate.py
FORMAT = 1
PRECISIONS = ("fp32", "fp16", "int8")
RED_GREEN_BLUE = 3

Triple: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a network's numbers mean.

    The defaults are those of the authors' DeepGlobe release (its test.py): BGR, x = pixel / 255 * 3.2 - 1.6, eight
    views, road where their mean exceeds one half (there: where their sum exceeds 4).
    """

    arch: str = "dlinknet34"
    width: float = 1.0  # multiplier of the channels
    tile: int = 1024  # side of the square input, px
    channels: str = "BGR"  # the order the network was trained on; images come as RGB
    scale: Triple = (3.2 / 255, 3.2 / 255, 3.2 / 255)  # x = pixel * scale + shift, in the order of `channels`
    shift: Triple = (-1.6, -1.6, -1.6)
    views: tuple[int, ...] = ALL  # test-time augmentation, see views.py
    threshold: float = 0.5  # a pixel is road where its probability is greater
    gsd_m: float = 0.5  # metres a pixel of the training tiles (DeepGlobe's)
    precision: str = "fp32"  # of the graph's tensors
    checkpoint_sha256: str = ""  # of the file the weights came from
    int8_method: str = ""  # how an INT8 file's ranges were cut; dlink-calibrate's --method
    int8_tiles_sha256: str = ""  # of the tiles it was calibrated on
    int8_verdict: str = ""  # what was seen when it was compared with the float network

    def __post_init__(self) -> None:
        if self.tile <= 0 or self.tile % 32:
            raise BadInput(f"tile must be a positive multiple of 32, got {self.tile}")
        if self.channels not in ("RGB", "BGR"):
            raise BadInput(f"channels must be RGB or BGR, got {self.channels!r}")
        if not len(self.scale) == len(self.shift) == RED_GREEN_BLUE or not np.isfinite([self.scale, self.shift]).all():
            raise BadInput(f"scale and shift must be three numbers each, got {self.scale} and {self.shift}")
        check_views(self.views)
        if not 0 <= self.threshold < 1:
            raise BadInput(f"threshold must be in [0, 1), got {self.threshold}")
        if self.precision not in PRECISIONS:
            raise BadInput(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if not self.gsd_m > 0:
            raise BadInput(f"gsd_m must be positive, got {self.gsd_m}")

    def prepare(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Network input of RGB tiles: uint8 (N, S, S, 3) -> float32 (N, 3, S, S), contiguous."""
        planes = np.moveaxis(tiles if self.channels == "RGB" else tiles[..., ::-1], -1, 1)
        x = np.empty(planes.shape, np.float32)
        scale, shift = (np.asarray(v, np.float32)[:, None, None] for v in (self.scale, self.shift))
        np.multiply(planes, scale, out=x)
        x += shift
        return x

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str, path: object) -> "Spec":
        """Inverse of `to_json`; `path` is for the message. A key that this version does not know is an error."""
        try:
            values = dict(json.loads(text))
        except (ValueError, TypeError) as e:
            raise BadModel(f"{path}: its spec is not JSON: {e}; export it again") from e
        if (format := values.pop("format", None)) != FORMAT:
            raise BadModel(f"{path}: spec of format {format}, this dlink reads {FORMAT}; export it again")
        if unknown := sorted(values.keys() - {f.name for f in fields(cls)}):
            raise BadModel(f"{path}: its spec has keys this dlink does not know: {', '.join(unknown)}; update dlink")
        try:
            lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
            return cls(**{**values, **lists})
        except (BadInput, TypeError) as e:
            raise BadModel(f"{path}: its spec is damaged: {e}; export it again") from e

    @classmethod
    def of_onnx(cls, metadata: Mapping[str, str], path: object) -> "Spec":
        """The Spec in an ONNX file's metadata."""
        if ONNX_KEY not in metadata:
            raise BadModel(f"{path}: says nothing of its preparation (no {ONNX_KEY}); write it with dlink-export")
        return cls.from_json(metadata[ONNX_KEY], path)
