"""A flight: video and telemetry in; roads, a session's folder, a map and a page out."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dlink.live.frame import Outcome, Roads
from dlink.live.ground.ground import Footprint, Ground
from dlink.live.live import Live
from dlink.live.pose import Pose
from dlink.live.telemetry.telemetry import Klv, Telemetry
from dlink.live.video.source import Source
from dlink.live.video.taken import Taken
from dlink.runtime import Closed

if TYPE_CHECKING:
    from dlink.live.page.board import Board
    from dlink.live.session.road_map import RoadMap
    from dlink.live.session.session import Session

TELLS = 0.25  # seconds between two looks at the counters
SAVES = 30.0  # seconds between two maps that are written on the way
MOST_FAILURES = 10
DIFFERS_M = 100.0  # between the heights above the ground of the telemetry and of an elevation model
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
        session: What is written. None: nothing.
        board: What the page shows. None: no page.
        tell: Called now and then with this flight, to say how it goes.
    """

    source: Source
    live: Live
    telemetry: Telemetry | None = None
    ground: Ground | None = None
    map: "RoadMap | None" = None
    session: "Session | None" = None
    board: "Board | None" = None
    tell: Tell | None = None
    newest: Roads | None = None
    begun: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    mapped: float = 0.0
    failures: list[str] = field(default_factory=list)  # why frames failed, the first ones
    without_pose: int = 0  # frames, where there is telemetry
    doubt: str = ""  # of the ground
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
        self.without_pose += self.telemetry is not None and pose is None
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
            self.doubt = self.doubt or doubt_of(self.ground, pose)
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

    @property
    def problems(self) -> list[str]:
        """What went wrong for good, or looks so, each in a sentence."""
        session = self.session.failure if self.session else None
        return [
            *([f"the session is written no more: {session}"] if session else []),
            *([self.source.failure] if self.source.failure else []),
            *([f"the map is written no more: {self.map_error}"] if self.map_error else []),
            *([self.doubt] if self.doubt else []),
        ]

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
            "problems": self.problems,
        }
        if isinstance(self.telemetry, Klv):
            state["telemetry_refused"] = self.telemetry.refused
        return state


def doubt_of(ground: Ground, pose: Pose) -> str:
    """Why the ground may be wrong: a camera is not at two heights. Empty where nothing says so."""
    below = ground.terrain.below(pose, np.zeros((1, 2)))
    if below is None or pose.height_m is None or not abs(float(below[0]) - pose.height_m) > DIFFERS_M:
        return ""
    return (
        f"the elevation that was given puts the camera {float(below[0]):.0f} m above the ground, and the telemetry "
        f"{pose.height_m:.0f} m"
    )
