"""The options that several commands have, each defined once, and options that belong together as one argument."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])
Option: TypeAlias = Callable[[Any], Any]  # what click.option returns

IN_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
IN_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
IN_PATH = click.Path(exists=True, path_type=Path)
OUT_PATH = click.Path(path_type=Path)
METRES = click.FloatRange(0)
AT_LEAST_1 = click.IntRange(1)
FRACTION = click.FloatRange(0, 1)
POSITIVE = click.FloatRange(0, min_open=True)


class Views(click.ParamType):  # type: ignore[type-arg]
    """A number of views, or adaptive."""

    name = "views"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "adaptive" or isinstance(value, int):
            return value
        return int(value) if value.isdecimal() else self.fail(f"{value!r} is not 8, 4, 1 or adaptive", param, ctx)


class Picture(click.Path):
    """A picture or a folder; an address of the internet becomes a path of GDAL's /vsicurl/."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            value = f"/vsicurl/{value}"
        return super().convert(value, param, ctx)


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers separated by commas, one for each band: red, green and blue for most networks."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(map(float, value.split(",")))
        except ValueError:
            self.fail(f"{value!r} is not numbers separated by commas, such as 0.485,0.456,0.406", param, ctx)


class Names(click.ParamType):  # type: ignore[type-arg]
    """Names of bands separated by commas; r, g and b are red, green and blue."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        parts = [part.strip().lower() for part in value.split(",")]
        if any(part.isdigit() for part in parts):
            self.fail(f"{value!r}: expected names of bands, such as red,green,blue,nir, not numbers", param, ctx)
        return tuple({"r": "red", "g": "green", "b": "blue"}.get(part, part) for part in parts)


class Count(click.Choice):  # type: ignore[type-arg]
    """One of a few numbers."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return int(super().convert(str(value), param, ctx))


@dataclass(frozen=True)
class Together:
    """Options that a command takes as one argument: a frozen dataclass, whose fields have the options' names.

    `kind` is the dataclass as "module:Name" within dlink. It is imported only when the command runs, because its module
    may load a library that --help must not load. A member may itself be a `Together`. An option without a value and
    without a default on the command line gets the dataclass's default.
    """

    name: str  # of the argument
    kind: str
    members: "tuple[Option | Together, ...]"

    def __call__(self, command: F) -> F:
        @wraps(command)
        def gathered(**given: Any) -> Any:
            made = self.made_of(given)
            return command(**given, **{self.name: made})

        vars(gathered)["together"] = (self, *vars(command).get("together", ()))
        for option in reversed(self.options):
            option(gathered)
        return cast(F, gathered)

    @property
    def options(self) -> list[Option]:
        """All options, those of nested members too, in the order of --help."""
        return [o for m in self.members for o in (m.options if isinstance(m, Together) else [m])]

    @property
    def fields(self) -> list[str]:
        return [m.name if isinstance(m, Together) else name_of(m) for m in self.members]

    @property
    def dataclass(self) -> type:
        module, _, name = self.kind.partition(":")
        return cast(type, getattr(import_module(f"dlink.{module}"), name))

    def given(self, ctx: click.Context) -> set[str]:
        """The fields that were given on the command line, those of nested members as the member's field."""
        return {
            name
            for name, m in zip(self.fields, self.members, strict=True)
            if (m.given(ctx) if isinstance(m, Together) else was_given(ctx, name))
        }

    def made_of(self, given: dict[str, Any]) -> Any:
        """The dataclass; its values are removed from `given`."""
        values = {
            name: m.made_of(given) if isinstance(m, Together) else given.pop(name)
            for name, m in zip(self.fields, self.members, strict=True)
        }
        return self.dataclass(**{name: value for name, value in values.items() if value is not None})


def was_given(ctx: click.Context, name: str) -> bool:
    """Whether a parameter has its value from the user, and not by default."""
    return ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def given(name: str) -> set[str]:
    """The fields of the running command's argument `name`, a `Together`, that were given on the command line."""
    ctx = click.get_current_context()
    found: tuple[Together, ...] = vars(ctx.command.callback)["together"]
    return next(each.given(ctx) for each in found if each.name == name)


def together(name: str, kind: str, *members: "Option | Together") -> Together:
    return Together(name, kind, members)


def name_of(option: Option) -> str:
    """The name that click gives to an option's value."""
    probe = click.Command(None)
    option(probe)
    return str(probe.params[0].name)


model = click.argument("model", type=IN_FILE)
tiles = click.argument("tiles", type=IN_FOLDER)


def output(words: str, required: bool = False) -> Option:
    return click.option("-o", "--output", "out", type=OUT_PATH, required=required, help=words)


def pictures(words: str) -> Option:
    return click.option("--tiles", type=IN_FOLDER, help=words)


def tile(words: str) -> Option:
    return click.option("--tile", default=1024, show_default=True, help=words)


def precision(*known: str, default: str, words: str | None = None) -> Option:
    return click.option("--precision", type=click.Choice(known), default=default, show_default=True, help=words)


def seed(words: str, default: int = 0) -> Option:
    return click.option("--seed", default=default, show_default=True, help=words)


def gsd(words: str, default: float | None = None) -> Option:
    return click.option("--gsd", "gsd_m", type=POSITIVE, default=default, show_default=bool(default), help=words)


def threshold(words: str) -> Option:
    return click.option("--threshold", type=float, help=words)


def views(words: str, default: str | None = None) -> Option:
    """A number of views: what a plan is built for, and what a threshold is tuned with."""
    shown = default is not None
    return click.option("--views", type=Count(["8", "4", "1"]), default=default, show_default=shown, help=words)


def target(default: Callable[[], str] | None = None) -> Option:
    return click.option(
        "--target",
        type=click.Choice(["tensorrt", "tensorrt-rtx"]),
        default=default,
        help="[default: tensorrt if it is installed, else tensorrt-rtx]",
    )


def workers(words: str, default: int | None = None, least: int = 1) -> Option:
    shown = default is not None
    return click.option("--workers", type=click.IntRange(least), default=default, show_default=shown, help=words)


def max_iou_drop(words: str, default: float | None = None) -> Option:
    return click.option("--max-iou-drop", type=FRACTION, default=default, show_default=bool(default), help=words)


def min_agreement(words: str, default: float | None = None) -> Option:
    return click.option("--min-agreement", type=FRACTION, default=default, show_default=bool(default), help=words)


preparation = (
    click.option(
        "--channels",
        type=click.Choice(["BGR", "RGB"]),
        help="Channel order in training.  [default: BGR; RGB from elsewhere]",
    ),
    click.option(
        "--mean",
        type=Numbers(),
        metavar="R,G,B",
        help="Mean that training subtracted, of pixels in 0..1, for each band, whatever --channels is.  "
        "[default: the network's own preparation]",
    ),
    click.option(
        "--std",
        type=Numbers(),
        metavar="R,G,B",
        help="Deviation that training divided by, of pixels in 0..1, for each band, whatever --channels is.",
    ),
)
bands = click.option(
    "--bands", metavar="N,N,N", help="A raster's bands in the network's order, mostly red, green, blue; such as 5,3,2."
)


def stretch_of(words: str) -> Option:
    return click.option("--stretch", metavar="2,98|200:1475", help=words)


STRETCH = "How other samples than 8 bits become 8: percentiles, or values for all bands or each."
stretch = stretch_of(f"{STRETCH}  [default: the model's, else 2,98]")
own_stretch = stretch_of(f"{STRETCH}  [default: 2,98]")


def read_at(default: str) -> Option:
    words = f"Ground resolution at which rasters are read, metres a pixel.  [default: {default}]"
    return click.option("--gsd", metavar="native|METRES", help=words)


road_value = click.option(
    "--road-value", metavar="V[,V]", help="Values of a label that are road, such as 2 or '#ff0000'.  [default: not 0]"
)


def reading(*more: Option) -> Together:
    """How pictures are read, and with `more` labels."""
    return together("reading", "imagery.reading:Reading", bands, stretch, read_at("the model's"), *more)


def own_reading(*more: Option) -> Together:
    """The same of a command without a model."""
    return together("reading", "imagery.reading:Reading", bands, own_stretch, read_at("as they are"), *more)


lines = (
    click.option(
        "--min-length", type=METRES, metavar="METRES", help="Drop shorter pieces on their own.  [default: 20]"
    ),
    click.option("--simplify", type=METRES, metavar="METRES", help="How far results may be simplified.  [default: 1]"),
    click.option("--bridge", type=METRES, metavar="METRES", help="Bridge gaps up to this length.  [default: 0]"),
    click.option("--smooth/--no-smooth", default=True, show_default=True, help="Smooth lines between junctions."),
)
widest = click.option("--widest", type=POSITIVE, metavar="METRES", help="Wider areas are no roads.  [default: 50]")
areas = (
    click.option("--min-area", type=METRES, metavar="M2", help="Of polygons: drop smaller areas.  [default: 10]"),
    click.option("--square", is_flag=True, help="Of polygons: square their corners, as buildings have them."),
)
beside_osm = together(
    "osm",
    "maps.osm_options:OsmOptions",
    click.option(
        "--osm", "extract", type=IN_FILE, help="Leave out, and join, what this OpenStreetMap extract has (.osm.pbf)."
    ),
    click.option(
        "--osm-distance",
        "distance",
        type=POSITIVE,
        metavar="METRES",
        help="How near an existing line is the same road; for wide roads half their width and 4 m.  [default: 12]",
    ),
)

any_views = click.option(
    "--views", type=Views(), help="Test-time augmentation: 8, 4, 1 or adaptive.  [default: the model's]"
)
threads = click.option("--threads", type=int, help="CPU threads.  [default: all]")
limit = click.option("--limit", type=AT_LEAST_1, help="Use only this many tiles, the first by name.")
max_tiles = click.option("--max-tiles", type=AT_LEAST_1, default=1, show_default=True, help="The most tiles at once.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON.")
append = click.option("--append", type=OUT_PATH, help="Append a line for each result to this file (.jsonl).")


def network(of: str = "", *more: Option) -> Together:
    """What of a checkpoint is read. `of` begins the options' names where a command has a --key of its own."""
    first = "the first network of state_dict, model_state_dict, model, net, network and others"
    exported = "what the model was exported from" if of else ""
    key = click.option(
        f"--{of}key",
        "key",
        metavar="NAME",
        help=f"Key or prefix of the network in the checkpoint, such as ema.  [default: {exported or first}]",
    )
    road = click.option(
        f"--{of}class",
        "road",
        type=int,
        metavar="K",
        help=f"The class that is road, of a network with several.  [default: {exported or '1 of two'}]",
    )
    return together("network", "nets.options:NetworkOptions", *more, key, road)


key = click.option("--key", "keys", type=IN_FILE, multiple=True, help="Open only a plan that this key has signed.")
rebuild = click.option("--rebuild", is_flag=True, help="Rebuild a plan that does not fit this machine.")
require_verdict = click.option("--require-verdict", is_flag=True, help="Open only a plan that dlink-check has passed.")
scout = click.option("--scout", type=IN_FILE, help="A small network that looks first, calibrated by dlink-scout.")
opening = together("opening", "cli.plans:OpenOptions", threads, key, rebuild)
scouted = together("opening", "cli.plans:OpenOptions", threads, key, rebuild, scout)
