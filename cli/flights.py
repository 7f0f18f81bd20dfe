"""The parts of a flight, for `dlink-live`: opened, brought together, and what was done in words."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlink.runtime.errors import BadInput, CheckFailed

if TYPE_CHECKING:
    from dlink.live.flight import Flight
    from dlink.live.live import Live
    from dlink.live.session.session import Session
    from dlink.live.telemetry.telemetry import TelemetryOptions

TELLS = 5.0  # seconds between two lines of progress
DEADLINE_MS = 200.0
LAST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How a video is read, and which of its frames are computed."""

    raw: str | None = None
    pace: bool = False
    every: bool = False
    seconds: float | None = None
    damaged: bool = False


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How frames are computed."""

    deadline_ms: float | None = None
    late: str = "deliver"
    views: int | str | None = None
    scout: Path | None = None
    threads: int | None = None
    here: bool = False
    standby: bool = False


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Where frames lie."""

    gsd_m: float | None = None
    elevation: float | None = None
    dem: Path | None = None
    map_m: float | None = None
    telemetry: str | None = None
    reading: "TelemetryOptions"


@dataclass(frozen=True, kw_only=True)
class GiveOptions:
    """What is given out."""

    masks: bool = True
    record: bool = True
    map: bool | None = None
    lines: bool = False
    page: str | None = None
    token: str | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for."""

    video: VideoOptions
    compute: ComputeOptions
    place: PlaceOptions
    give: GiveOptions


def check(asked: Asked, source: str, out: Path | None) -> None:
    """Raise BadInput for options that do not go together."""
    place, give = asked.place, asked.give
    if Path(source).suffix in (".onnx", ".plan"):
        raise BadInput(f"{source}: is a model, and the video was expected; MODEL comes first, then SOURCE")
    if asked.compute.here and asked.compute.standby:
        raise BadInput("--here and --standby: a spare process is kept for one that may crash; leave one of them out")
    if asked.video.raw and place.telemetry == "klv":
        raise BadInput("--raw and --telemetry klv: raw frames have no telemetry in them; pipe MPEG-TS")
    if place.reading.mount is not None and not (place.telemetry or "").startswith("mavlink:"):
        raise BadInput("--mount is for MAVLink; KLV and DJI's subtitles say how the camera looks")
    if place.reading.video_start and Path(place.telemetry or "").suffix not in (".tlog", ".bin"):
        raise BadInput("--video-start is for logs, whose times are UTC: --telemetry mavlink:flight.tlog")
    if give.map and not (out and place.telemetry):
        raise BadInput("--map is made of the camera's poses in the session's folder: it needs -o and --telemetry")
    if place.elevation is not None and place.dem:
        raise BadInput("--elevation and --dem: the ground is one or the other; leave one out")
    if (place.elevation is not None or place.dem) and not place.telemetry:
        raise BadInput("--elevation and --dem need the camera's poses: name --telemetry too, or give --gsd alone")
    if give.lines and (not (out and place.telemetry) or give.map is False):
        raise BadInput("--lines are drawn of the map, which needs -o and --telemetry")
    if place.map_m and not (out and place.telemetry):
        raise BadInput("--map-resolution: there is a map with -o and --telemetry only")
    if give.token and not give.page:
        raise BadInput("--token is for the page; name --page too")


def prepared(stack: ExitStack, model: Path, source: str, out: Path | None, asked: Asked) -> "Flight":
    """All parts of a flight, which `stack` closes."""
    from dlink.live.flight import Flight
    from dlink.live.notify import notify
    from dlink.live.telemetry.telemetry import Klv, telemetry_of
    from dlink.live.video.address import address_of
    from dlink.live.video.source import Source

    video, place, give = asked.video, asked.place, asked.give
    address = address_of(source, video.raw)
    telemetry = telemetry_of(place.telemetry, place.reading) if place.telemetry else None
    if telemetry:
        stack.callback(telemetry.close)
    ground = ground_of(place) if telemetry else None
    live, session = computing(stack, model, address.shown, out, asked, ground)
    if out and give.record and address.kind == "raw":
        click.echo("note: raw frames are not recorded; pipe MPEG-TS or Matroska for a recording", err=True)
    record = out if session and give.record and address.kind != "raw" else None
    on_data = telemetry.on_data if isinstance(telemetry, Klv) else None
    opened = Source(address, record, on_data, video.pace, video.damaged)
    stack.enter_context(opened)
    said = [text for text in (live.assumes, telemetry.assumes if telemetry else "") if text]
    for text in said:
        click.echo(f"note: {text}", err=True)
    notify("READY=1")
    flight = Flight(opened, live, telemetry, ground, session=session, tell=Progress())
    if out and ground and give.map is not False:
        from dlink.live.session.road_map import RoadMap

        flight.map = RoadMap(out, ground, place.map_m or live.engine.about.spec.gsd_m)
        stack.callback(close_map, flight)
    if give.page:
        flight.board = page(stack, give, address.shown, live, said)
    return flight


def computing(
    stack: ExitStack, model: Path, shown: str, out: Path | None, asked: Asked, ground: Any
) -> "tuple[Live, Session | None]":
    """The Live, and the session that writes what becomes of its frames."""
    from dlink.live.live import Live
    from dlink.live.session.head import head_of
    from dlink.live.session.session import Session

    video, compute, place = asked.video, asked.compute, asked.place
    options: dict[str, Any] = {"threads": compute.threads} if compute.threads else {}
    if compute.scout:
        options["scout"] = compute.scout
    whole = video.every or (Path(shown).is_file() and not video.pace)  # all frames, however long they take
    deadline = compute.deadline_ms or (None if whole else DEADLINE_MS)
    made = Live(
        model,
        deadline=deadline / 1000 if deadline else None,
        keep="all" if whole else "newest",
        late="drop" if compute.late == "drop" else "deliver",
        views=compute.views,  # type: ignore[arg-type] # the option's own type checked it
        ground=place.gsd_m if place.gsd_m is not None else ground,
        process=not compute.here,
        standby=compute.standby,
        **options,
    )
    with ExitStack() as failing:
        failing.callback(made.close)
        session = None
        if out:
            words = words_of(asked) | {"deadline": str(made.deadline), "views": str(made.ladder.rungs)}
            session = Session(out, head_of(made.engine.about, model, shown, words), asked.give.masks)
            made.outcomes = session.put
            stack.callback(close_session, session)
        failing.pop_all()
    stack.enter_context(made)  # it is closed before the session, which writes what was left
    return made, session


def words_of(asked: Asked) -> dict[str, str]:
    """What was asked for, option by option."""
    place = {name: value for name, value in vars(asked.place).items() if name != "reading"}
    given = vars(asked.video) | vars(asked.compute) | place | vars(asked.place.reading)
    return {name: str(value) for name, value in given.items() if value not in (None, False)}


def close_session(session: "Session") -> None:
    """End a session. A disk that failed is told by `finish`, after all else."""
    try:
        session.close()
    except OSError as e:
        session.failure = e


def close_map(flight: "Flight") -> None:
    """Write the map at the end, also of a flight that failed."""
    if flight.map:
        try:
            if not flight.map_error:
                flight.map.save(last=True)
        except OSError as e:
            flight.map_error = str(e)
        finally:
            flight.map.close()


def ground_of(place: PlaceOptions) -> Any:
    """The ground below the camera."""
    if place.dem:
        from dlink.live.ground.dem import Dem

        return Dem(place.dem)
    from dlink.live.ground.ground import Flat

    return Flat(place.elevation)


def page(stack: ExitStack, give: GiveOptions, title: str, live: "Live", assumes: list[str]) -> Any:
    """The board of a page that is served from now on."""
    from dlink.live.page.board import Board
    from dlink.live.page.server import LOCAL, Server

    host, _, port = (give.page or "").rpartition(":")
    if not port.isdecimal() or int(port) > LAST_PORT:
        raise BadInput(f"--page: {give.page}: write a port such as 8090, or an address and a port, 0.0.0.0:8090")
    board = Board(title, live.deadline, tuple(assumes))
    server = stack.enter_context(Server(board, host.strip("[]") or LOCAL, int(port), give.token))
    click.echo(f"page: {server.url}", err=True)
    return board


class Progress:
    """A line now and then, to the terminal; and to systemd that the flight lives."""

    def __init__(self) -> None:
        from dlink.live.notify import Watchdog

        self.said, self.watchdog = time.monotonic(), Watchdog()

    def __call__(self, flight: "Flight") -> None:
        counts = flight.live.counts
        self.watchdog.look(counts.offered, counts.waiting, line(flight))
        if flight.over.is_set() or time.monotonic() - self.said < TELLS:
            return
        self.said = time.monotonic()
        click.echo(line(flight), err=True)


def line(flight: "Flight") -> str:
    """How it goes."""
    counts, newest = flight.live.counts, flight.newest
    parts = [f"{time.monotonic() - flight.begun:.0f} s: {counts.offered} frames", f"{counts.roads} with roads"]
    if newest:
        parts[-1] += f" ({newest.done - newest.frame.captured:.3f} s old, {newest.views:g} views)"
    parts += [f"{n} {name}" for name in ("late", "replaced", "expired", "failed") if (n := getattr(counts, name))]
    seen = flight.source.seen
    if seen.corrupt:
        parts.append(f"{seen.corrupt} damaged")
    if flight.live.state == "restarting":
        parts.append(f"the engine is being opened again ({flight.live.engine.error})")
    if flight.source.state == "connecting" and not counts.offered:
        parts.append("waiting for video")
    if flight.source.state == "lost":
        parts.append(f"the video is lost ({seen.lost})")
    return ", ".join(parts + flight.problems)


@contextmanager
def stopped_by_signals(flight: "Flight", seconds: float | None) -> Iterator[None]:
    """Let SIGINT and SIGTERM end a flight in order; a second one ends it at once. Ends it after some seconds, too."""

    def stop(number: int, frame: Any) -> None:
        if flight.over.is_set():
            raise KeyboardInterrupt
        threading.Thread(target=flight.stop, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    timer = threading.Timer(seconds, flight.stop) if seconds else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(flight: "Flight", out: Path | None, give: GiveOptions) -> None:
    """Write the map, say what was done, and fail where no frame got roads."""
    click.echo(line(flight))
    for words in flight.problems:
        click.echo(f"note: {words}", err=True)
    if flight.source.seen.partial:
        click.echo(f"note: the last {flight.source.seen.partial} bytes are no whole frame", err=True)
    counts, seen = flight.live.counts, flight.source.seen
    if seen.corrupt:
        what = "computed" if flight.source.damaged else "left out; --damaged computes them"
        click.echo(f"note: {seen.corrupt} frames were damaged ({seen.damage}), and {what}", err=True)
    if flight.without_pose and flight.telemetry:
        click.echo(f"note: {flight.without_pose} frames without a pose; {flight.telemetry.heard}", err=True)
    if flight.failures and counts.roads + counts.late:
        click.echo(f"note: {counts.failed} failed; the first: {flight.failures[0]}", err=True)
    if out and out.exists():
        click.echo(f"{out}: {', '.join(sorted(path.name for path in out.iterdir() if path.name[0] != '.'))}")
    if give.lines and out and flight.map and flight.map.frames and not flight.map_error:
        draw_lines(out)
    if not counts.roads + counts.late:
        why = flight.failures[0] if flight.failures else flight.source.seen.lost or "no frame came"
        raise CheckFailed(f"no frame got roads: {why}")
    if flight.session and flight.session.failure:
        raise flight.session.failure
    if flight.map_error:
        raise CheckFailed(f"the map ended: {flight.map_error}")


def draw_lines(out: Path) -> None:
    """Draw the map's roads as lines."""
    from dlink.imagery.reading import Reading
    from dlink.maps.vectorize import LineOptions, vectorize

    path = out / "roads.gpkg"
    found = vectorize(out / "map.tif", path, LineOptions(threshold=0.5), Reading(), lambda *_: None)
    click.echo(f"{path}: {found.words}")
