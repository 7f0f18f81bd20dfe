"""The contract between a trained network and what runs it: written once at export, carried inside every later file.

In an ONNX file it is JSON under the metadata key `dlink.spec`: the fields of `Spec` and `"format": 1`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias, get_type_hints

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.errors import BadInput, BadModel
from dlink.runtime.scout_limit import ScoutLimit
from dlink.runtime.stretch import Stretch
from dlink.runtime.values import dataclass_of, load_json, value_of
from dlink.runtime.views import ALL, check_views
from dlink.runtime.words import counted

ONNX_KEY = "dlink.spec"
INT8_KEY = (
    "dlink.int8"  # metadata of an INT8 file, JSON: how it was made, and a row for each layer (calib/calibrate.py)
)
FORMAT = 1
PRECISIONS = ("fp32", "fp16", "int8")
RED_GREEN_BLUE = 3
COLOURS = ("red", "green", "blue")
MOST_BANDS = 8
LONGEST_BAND = 40  # characters of a band's name
ADOPTED = "adopted"  # begins the names of networks that are none of dlink's list
LONGEST_NAME = 400  # of a network, or of an ensemble's joined names
LARGEST_TILE = 8192  # px; a D-LinkNet's first layer alone takes 4 GB for it
LARGEST_WIDTH = 16.0
SMALLEST_SCALE = 1e-7  # with a smaller scale all pixels are equal in float16
LARGEST_INPUT = 65504.0  # of a prepared pixel: the largest float16
LARGEST_GSD_M = 1000.0
LATER = (
    "slim",
    "bands",
    "stretch",
    "target",
    "checkpoint_key",
    "checkpoint_class",
    "scout",
)  # the format did not have them at first
TARGET = re.compile(r"\S{1,40}")
SHA256 = re.compile("([0-9a-f]{64})?")

Numbers: TypeAlias = tuple[float, ...]  # one for each band


def order_of(bands: tuple[str, ...]) -> str:
    """The `channels` of a network of these bands: BGR, as the authors have it, where the colours come first."""
    return "BGR" if bands[:RED_GREEN_BLUE] == COLOURS else "RGB"


def limit_of(value: Any) -> ScoutLimit:
    """A scout's limit, as it is or from JSON values."""
    return value if isinstance(value, ScoutLimit) else dataclass_of(ScoutLimit, value, {})


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a network's numbers mean: its tile, preparation, views and threshold. Frozen, and checked when it is made.

    The defaults are those of the D-LinkNet authors' DeepGlobe release (its test.py): BGR, x = pixel / 255 * 3.2 - 1.6,
    eight views, road where their mean exceeds one half (there: where their sum exceeds 4).

    Raises:
        BadInput: A value has the wrong type or is out of range.

    Example:
        >>> from dlink.runtime import Spec
        >>> spec = Spec(tile=512, threshold=0.4)
        >>> spec.tile, spec.channels, spec.views
        (512, 'BGR', (0, 1, 2, 3, 4, 5, 6, 7))
    """

    arch: str = "dlinknet34"
    width: float = 1.0  # multiplier of the channels
    slim: float = 1.0  # share of that width's multiply-adds that is left in a slim network
    tile: int = 1024  # side of the square input, px, a multiple of 32
    bands: tuple[str, ...] = COLOURS  # what an image's planes are, in their order: colours first
    stretch: str = ""  # how other samples than 8 bits become 8 bits (stretch.py); empty: as the reader says
    channels: str = "BGR"  # order in which the network takes red, green, blue; further bands follow in their order
    scale: Numbers = (3.2 / 255, 3.2 / 255, 3.2 / 255)  # x = pixel * scale + shift, in the network's order
    shift: Numbers = (-1.6, -1.6, -1.6)
    views: tuple[int, ...] = ALL  # numbers from 0 to 7, see views.py
    threshold: float = 0.5  # a pixel is road where its probability is greater
    gsd_m: float = 0.5  # ground resolution of the training tiles, metres a pixel (DeepGlobe's)
    precision: str = "fp32"  # of the graph's tensors: fp32, fp16 or int8
    target: str = "road"  # what the mask shows: road, building or another word
    checkpoint_sha256: str = ""  # hash of the checkpoint file
    checkpoint_key: str = ""  # where the network was in that file; empty: where it is looked for first
    checkpoint_class: int | None = None  # the class that is road, of a network of two
    int8_method: str = ""  # how an INT8 file's ranges were cut: dlink-calibrate's --method
    int8_tiles_sha256: str = ""  # hash of the calibration tiles
    int8_verdict: str = ""  # result of the comparison with the float network
    scout: ScoutLimit | None = None  # of a small network that looks first: which tiles the large one skips

    def __post_init__(self) -> None:
        self.take_types()
        if not (0 < len(self.arch) <= LONGEST_NAME and self.arch.isprintable()):
            raise BadInput(f"arch must be the name of a network, got {self.arch[:40]!r}")
        if self.tile <= 0 or self.tile % 32:
            raise BadInput(f"tile must be a positive multiple of 32, got {self.tile}")
        if self.tile > LARGEST_TILE:
            raise BadInput(f"tile must be at most {LARGEST_TILE}, got {self.tile}; larger images are cut into tiles")
        if not 0 < self.width <= LARGEST_WIDTH:
            raise BadInput(f"width must be greater than 0, up to {LARGEST_WIDTH:g}, got {self.width:g}")
        if not 0 < self.slim <= 1:
            raise BadInput(f"slim must be a share, greater than 0, up to 1, got {self.slim:g}")
        if self.channels not in ("RGB", "BGR"):
            raise BadInput(f"channels must be RGB or BGR, got {self.channels!r}")
        self.check_bands()
        self.check_preparation()
        check_views(self.views)
        if not 0 <= self.threshold < 1:
            raise BadInput(f"threshold must be in [0, 1), got {self.threshold}")
        if self.precision not in PRECISIONS:
            raise BadInput(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if not (TARGET.fullmatch(self.target) and self.target.isprintable()):
            raise BadInput(f"target must be a word such as road or building, got {self.target[:40]!r}")
        if not 0 < self.gsd_m <= LARGEST_GSD_M:
            raise BadInput(f"gsd_m must be positive, up to {LARGEST_GSD_M:g}, got {self.gsd_m}")
        if len(self.checkpoint_key) > LONGEST_NAME or self.checkpoint_class not in (None, 0, 1):
            raise BadInput(
                f"checkpoint_key must be a short text and checkpoint_class 0 or 1, got {self.checkpoint_key[:40]!r} "
                f"and {self.checkpoint_class}"
            )
        for name in ("checkpoint_sha256", "int8_tiles_sha256"):
            if not SHA256.fullmatch(getattr(self, name)):
                raise BadInput(f"{name} must be 64 hexadecimal digits or empty, got {getattr(self, name)[:80]!r}")

    def take_types(self) -> None:
        """Convert each field to its declared type: whole numbers to floats, lists to tuples."""
        hints = get_type_hints(type(self))
        for name, hint in hints.items():
            try:
                object.__setattr__(self, name, value_of(hint, getattr(self, name), name, {ScoutLimit: limit_of}))
            except (TypeError, OverflowError) as e:
                raise BadInput(str(e)) from e

    def check_bands(self) -> None:
        """One to eight different names, and red, green, blue in this order in front if the network takes BGR."""
        named = all(0 < len(name) <= LONGEST_BAND and name.isprintable() for name in self.bands)
        if not (0 < len(self.bands) <= MOST_BANDS and len(set(self.bands)) == len(self.bands) and named):
            raise BadInput(f"bands must be 1 to {MOST_BANDS} different names, got {str(list(self.bands))[:200]}")
        if self.channels == "BGR" and self.bands[:RED_GREEN_BLUE] != COLOURS:
            raise BadInput(
                f"channels BGR needs bands that begin with {', '.join(COLOURS)}, got {', '.join(self.bands)}; "
                f"RGB takes bands in their order"
            )
        if self.stretch:
            Stretch.of(self.stretch, "stretch")

    def check_preparation(self) -> None:
        """Prepared pixels must fit in float16, and differ where the pixels differ."""
        count = len(self.bands)
        if not len(self.scale) == len(self.shift) == count or not np.isfinite([self.scale, self.shift]).all():
            many = "three numbers" if count == RED_GREEN_BLUE else f"{count} numbers"
            raise BadInput(f"scale and shift must be {many} each, got {self.scale} and {self.shift}")
        ends = [abs(255 * scale) + abs(shift) for scale, shift in zip(self.scale, self.shift, strict=True)]
        if max(ends) > LARGEST_INPUT or min(map(abs, self.scale)) < SMALLEST_SCALE:
            raise BadInput(
                f"scale must not be 0 or next to it, and prepared pixels must lie within {LARGEST_INPUT:g}, got scale "
                f"{self.scale} and shift {self.shift}"
            )

    def prepare(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Convert tiles to the network's input: x = pixel * scale + shift, in the network's channel order.

        Args:
            tiles: uint8 (N, S, S, C), planes in the order of `bands`; RGB for most networks.

        Returns:
            float32 (N, C, S, S), contiguous.

        Example:
            >>> from dlink.runtime import Spec
            >>> x = Spec(tile=64).prepare(image[None, :64, :64])
            >>> x.shape, float(x.min()), float(x.max())
            ((1, 3, 64, 64), -1.600000023841858, 1.600000023841858)
        """
        self.check_planes(tiles.shape[-1])
        planes = np.moveaxis(tiles[..., self.order], -1, 1)
        x = np.empty(planes.shape, np.float32)
        scale, shift = (np.asarray(v, np.float32)[:, None, None] for v in (self.scale, self.shift))
        np.multiply(planes, scale, out=x)
        x += shift
        return x

    def check_planes(self, planes: int) -> None:
        """Raise BadInput for an image of another number of planes."""
        if planes != len(self.bands):
            raise BadInput(f"this model takes {self.bands_in_words}, got an image of {planes}")

    @property
    def bands_in_words(self) -> str:
        """Such as "4 bands (red, green, blue, nir)"."""
        return f"{counted(len(self.bands), 'band')} ({', '.join(self.bands)})"

    @property
    def network_in_words(self) -> str:
        """Such as "dlinknet34 width 1", or "dlinknet34 width 1, slim to 39.6%"."""
        return f"{self.arch} width {self.width:g}" + (f", slim to {self.slim:.1%}" if self.slim < 1 else "")

    @property
    def order(self) -> Any:
        """Index of an image's planes in the network's order; a slice, which copies nothing, for three."""
        count = len(self.bands)
        if self.channels == "RGB":
            return slice(None)
        return slice(None, None, -1) if count == RED_GREEN_BLUE else [2, 1, 0, *range(RED_GREEN_BLUE, count)]

    def to_json(self) -> str:
        """The spec as JSON text.

        Returns:
            A JSON object: the fields and "format".

        Example:
            >>> import json
            >>> from dlink.runtime import Spec
            >>> values = json.loads(Spec(tile=64).to_json())
            >>> values["format"], values["tile"], values["threshold"]
            (1, 64, 0.5)
        """
        return json.dumps(
            {"format": FORMAT, **{name: value for name, value in asdict(self).items() if self.says(name)}}
        )

    def says(self, name: str) -> bool:
        """Whether the JSON has a field: those of LATER are left out at their defaults, as older files have it."""
        return name not in LATER or getattr(self, name) != getattr(type(self), name)

    @classmethod
    def from_json(cls, text: str, path: object) -> "Spec":
        """Read what `to_json` wrote.

        Args:
            text: The JSON text.
            path: The file it comes from, for the message.

        Returns:
            The spec.

        Raises:
            BadModel: The text is not JSON, has another format, an unknown key, or a value out of range.

        Example:
            >>> from dlink.runtime import Spec
            >>> spec = Spec(tile=64, views=(0,))
            >>> Spec.from_json(spec.to_json(), "roads.onnx") == spec
            True
        """
        try:
            values = load_json(text)
        except ValueError as e:
            raise BadModel(f"{path}: its spec is not JSON: {e}; export it again") from e
        return cls.of_values(values, path)

    @classmethod
    def of_values(cls, values: Any, path: object) -> "Spec":
        """Inverse of `to_json` for parsed JSON; `path` is for the message."""
        if not isinstance(values, dict):
            raise BadModel(f"{path}: its spec is not a JSON object; export it again")
        given = dict(values)
        format = given.pop("format", None)
        if format != FORMAT or type(format) is not int:
            raise BadModel(f"{path}: spec of format {str(format)[:40]}, this dlink reads {FORMAT}; export it again")
        if unknown := sorted(given.keys() - {f.name for f in fields(cls)}):
            names = ", ".join(unknown)[:80]
            raise BadModel(f"{path}: its spec has keys this dlink does not know: {names}; update dlink")
        try:
            return cls(**given)
        except BadInput as e:
            raise BadModel(f"{path}: its spec is damaged: {e}; export it again") from e

    @classmethod
    def of_onnx(cls, metadata: Mapping[str, str], path: object) -> "Spec":
        """The spec in an ONNX file's metadata.

        Args:
            metadata: The file's metadata properties.
            path: The file, for the message.

        Returns:
            The spec.

        Raises:
            BadModel: There is no spec, or it is damaged.

        Example:
            >>> from dlink.runtime import Spec
            >>> metadata = {"dlink.spec": Spec(tile=64).to_json()}  # such as onnxruntime's custom_metadata_map
            >>> Spec.of_onnx(metadata, "roads.onnx").tile
            64
        """
        if ONNX_KEY not in metadata:
            raise BadModel(f"{path}: says nothing of its preparation (no {ONNX_KEY}); write it with dlink-export")
        return cls.from_json(metadata[ONNX_KEY], path)
