"""A flight: video and telemetry in; roads, a session's folder, a map and a page out."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlink.live.frame import Outcome, Roads
from dlink.live.ground.ground import Footprint, Ground
from dlink.live.live import Live
from dlink.live.telemetry.telemetry import Klv, Telemetry
from dlink.live.video.source import Source
from dlink.live.video.taken import Taken
from dlink.runtime import Closed

if TYPE_CHECKING:
    from dlink.live.page.board import Board
    from dlink.live.session.road_map import RoadMap

TELLS = 0.25  # seconds between two looks at the counters
SAVES = 30.0  # seconds between two maps that are written on the way
MOST_FAILURES = 10
SHOWS_MAP = 3.0  # seconds between two pictures of the map

Tell = Callable[["Flight"], object]


@dataclass
class Flight:
    """Runs a video through a Live until it ends or `stop` is called. It closes none of its parts.

    Args:
        source: The video.
        live: What computes roads. Its `outcomes` may be a session's `put`.
        telemetry: The camera of each frame. None: not known.
        ground: Where frames lie, for their footprints. None: not known.
        map: The map that grows. None: none.
        board: What the page shows. None: no page.
        tell: Called now and then with this flight, to say how it goes.
    """

    source: Source
    live: Live
    telemetry: Telemetry | None = None
    ground: Ground | None = None
    map: "RoadMap | None" = None
    board: "Board | None" = None
    tell: Tell | None = None
    newest: Roads | None = None
    begun: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    mapped: float = 0.0
    failures: list[str] = field(default_factory=list)  # why frames failed, the first ones
    error: BaseException | None = None  # of reading the video
    map_error: str = ""  # why the map is written no more
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.further, self.live.outcomes = self.live.outcomes, self.ended

    def ended(self, outcome: Outcome) -> None:
        """Note why a frame failed, and hand its outcome on."""
        if outcome.error and len(self.failures) < MOST_FAILURES:
            self.failures.append(outcome.error)
        if self.further:
            self.further(outcome)

    def run(self) -> None:
        """Return when the video has ended and its frames are done, or after `stop`. Raises what reading raised."""
        threads = [threading.Thread(target=work, daemon=True) for work in (self.read, self.watch)]
        for thread in threads:
            thread.start()
        try:
            for roads in self.live:
                self.take(roads)
        finally:
            self.stop()
            for thread in threads:
                thread.join()
        self.report()
        if self.error:
            raise self.error

    def stop(self) -> None:
        """End the flight; from any thread."""
        self.over.set()
        self.source.close()
        self.live.end()

    def read(self) -> None:
        """Offer the video's frames."""
        try:
            for taken in self.source:
                self.offer(taken)
        except Closed:
            pass
        except BaseException as e:
            self.error = e
        finally:
            self.live.end()

    def offer(self, taken: Taken) -> None:
        pose = self.telemetry.pose(taken) if self.telemetry else None
        self.live.offer(
            taken.pixels,
            captured=taken.captured,
            pts=taken.pts,
            utc=pose.utc if pose else None,
            pose=pose,
            tag=(taken.video, taken.index) if taken.video else None,
        )

    def take(self, roads: Roads) -> None:
        """Show a frame's roads and add them to the map."""
        self.newest = roads
        footprint, pose = None, roads.frame.pose
        if self.ground and pose:
            height, width = roads.levels.shape
            footprint = self.ground.footprint(pose, width, height)
        if self.map and pose and not self.map_error:
            self.add_to_map(self.map, roads)
        if self.board:
            self.show(self.board, roads, footprint)

    def add_to_map(self, map: "RoadMap", roads: Roads) -> None:
        """A disk that fails ends the map, and not the flight."""
        assert roads.frame.pose is not None
        try:
            map.add(roads.levels, roads.frame.pose)
            if time.monotonic() - self.saved > SAVES:
                map.save()
                self.saved = time.monotonic()
        except OSError as e:
            self.map_error = str(e)

    def show(self, board: "Board", roads: Roads, footprint: Footprint | None) -> None:
        board.show(roads, footprint)
        if self.map and time.monotonic() - self.mapped > SHOWS_MAP:
            self.mapped = time.monotonic()
            if picture := self.map.picture():
                board.show_map(picture)

    def watch(self) -> None:
        """Say how it goes, until the flight is over."""
        while not self.over.wait(TELLS):
            self.report()

    def report(self) -> None:
        if self.board:
            self.board.tell(self.live.counts, **self.state())
        if self.tell:
            self.tell(self)

    def state(self) -> dict[str, Any]:
        """How it goes, for the page and /metrics."""
        seen, engine = self.source.seen, self.live.engine
        state: dict[str, Any] = {
            "state": "closed" if self.over.is_set() else self.live.state,
            "views": str(self.live.views),
            "restarts": engine.restarts,
            "source_state": self.source.state,
            "connections": seen.connections,
            "corrupt": seen.corrupt,
        }
        if isinstance(self.telemetry, Klv):
            refused = self.telemetry.reader.refused
            state["telemetry_refused"] = refused.checksum + refused.damaged + self.telemetry.unlikely
        return state
