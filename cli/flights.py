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


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How a video is read, and which of its frames are computed."""

    raw: str | None = None
    pace: bool = False
    every: bool = False
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How frames are computed."""

    deadline_ms: float | None = None
    late: str = "deliver"
    views: int | str | None = None
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
    map: bool = True
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


def check(asked: Asked, out: Path | None) -> None:
    """Raise BadInput for options that do not go together."""
    place, give = asked.place, asked.give
    if place.elevation is not None and place.dem:
        raise BadInput("--elevation and --dem: the ground is one or the other; leave one out")
    if (place.elevation is not None or place.dem) and not place.telemetry:
        raise BadInput("--elevation and --dem need the camera's poses: name --telemetry too, or give --gsd alone")
    if give.lines and not (out and place.telemetry and give.map):
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
    opened = Source(address, record, telemetry.on_data if isinstance(telemetry, Klv) else None, video.pace)
    stack.enter_context(opened)
    said = [text for text in (live.assumes, telemetry.assumes if telemetry else "") if text]
    for text in said:
        click.echo(f"note: {text}", err=True)
    notify("READY=1")
    flight = Flight(opened, live, telemetry, ground, tell=Progress())
    if out and ground and give.map:
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
            given = vars(video) | vars(compute) | vars(place)
            words = {name: str(value) for name, value in given.items() if value not in (None, False)}
            session = Session(out, head_of(made.engine.about, model, shown, words), asked.give.masks)
            made.outcomes = session.put
            stack.enter_context(session)
        failing.pop_all()
    stack.enter_context(made)  # it is closed before the session, which writes what was left
    return made, session


def close_map(flight: "Flight") -> None:
    """Write the map at the end, also of a flight that failed."""
    if flight.map:
        try:
            if not flight.map_error:
                flight.map.save(last=True)
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
    if not port.isdecimal():
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
    parts += [state for state in (flight.live.state, flight.source.state) if state in ("restarting", "lost")]
    return ", ".join(parts)


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
    for words in (flight.source.failure, flight.map_error and f"the map ended: {flight.map_error}"):
        if words:
            click.echo(f"note: {words}", err=True)
    if flight.source.seen.partial:
        click.echo(f"note: the last {flight.source.seen.partial} bytes are no whole frame", err=True)
    counts = flight.live.counts
    if flight.failures:
        click.echo(f"note: {counts.failed} frames failed; the first: {flight.failures[0]}", err=True)
    if out:
        click.echo(f"{out}: {', '.join(sorted(path.name for path in out.iterdir() if path.name[0] != '.'))}")
    if give.lines and out and flight.map and flight.map.frames:
        draw_lines(out)
    if not counts.roads + counts.late:
        why = flight.failures[0] if flight.failures else flight.source.seen.lost or "no frame came"
        raise CheckFailed(f"no frame got roads: {why}")


def draw_lines(out: Path) -> None:
    """Draw the map's roads as lines."""
    from dlink.imagery.reading import Reading
    from dlink.maps.vectorize import LineOptions, vectorize

    path = out / "roads.gpkg"
    found = vectorize(out / "map.tif", path, LineOptions(threshold=0.5), Reading(), lambda *_: None)
    click.echo(f"{path}: {found.words}")
