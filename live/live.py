"""Roads of a live video: frames are offered as they come, and roads come out in time.

A camera does not wait. Where frames come faster than the network is, frames must be left out, and the question is
which: here the newest frame is the next one, so roads are never old. Each offered frame ends in exactly one counter.
"""

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Literal, TypeAlias

from dlink.live.counts import Counts
from dlink.live.engine import Computed, share_looked_at
from dlink.live.frame import Frame, Outcome, Pixels, Roads
from dlink.live.ladder import RUNGS, Ladder, default_rungs, rungs_of
from dlink.live.opening import opener
from dlink.live.pixels import pixels_of, probe
from dlink.live.pose import Pose
from dlink.live.scaling import Resolution, Scaling, resized, scaled
from dlink.live.supervisor import Supervisor
from dlink.runtime import BadInput, Closed, Segmenter
from dlink.runtime.segmenter import Views, check_image
from dlink.runtime.values import real, whole
from dlink.runtime.windows import cover

DEADLINE = 0.2  # seconds
AHEAD = 1.0  # seconds that a frame's capture may lie in the future: clocks of cameras are not exact
MOST_WAITING = 10_000  # frames
ROOM = 4  # frames that wait with keep="all"
UNREAD = 16  # results that wait for a reader
LOOK = 0.5  # seconds between looks at what is closed
log = logging.getLogger(__name__)

Keep: TypeAlias = Literal["newest", "all"] | int
Late: TypeAlias = Literal["deliver", "drop"]


class Live:
    """Roads of a live video. It is a context manager; any thread may call.

    Args:
        model: The model file, or an open Segmenter, which other threads may use too: frames overtake their images.
        deadline: Seconds from the capture of a frame to its roads. Fewer views are taken where time is short. None:
            all views, however long they take. "auto": 0.2, and None with keep="all".
        keep: Which offered frames wait while another is computed: "newest", so many of the newest, or "all": then
            `offer` waits for room, which is for files.
        late: "deliver" roads that are late, marked so; or "drop" them, and frames that are too old at their turn.
        views: The most views: 8, 4, 1 or "adaptive"; a sequence is the whole ladder, the best first. None: the model's.
        ground: Metres a pixel of the frames, or a ground of `dlink.live.ground`, which tells it from each frame's pose.
            Frames are scaled to the resolution that the network was trained at. None: they are computed as they come.
        process: Run the network in a process of its own, which is replaced if it crashes or is stuck. A Segmenter runs
            in this process.
        standby: Keep a second process ready. It takes as much memory again.
        outcomes: Called with the Outcome of every offered frame, dropped ones too, by the thread that ends it. It must
            return at once; `queue.SimpleQueue().put` does. An error that it raises is logged.
        options: Options of `open_model`.

    Raises:
        BadInput: An option cannot be used.
        DlinkError: The model cannot be opened; `open_model` lists the errors.

    Example:
        >>> from dlink.live import Live
        >>> with Live("roads.onnx", keep="all") as live:
        ...     number = live.offer(image)
        ...     live.end()
        ...     for roads in live:
        ...         print(roads.frame.id == number, roads.mask.shape, roads.views)
        ...     print(live.counts.roads, "of", live.counts.offered)
        True (100, 150) 8.0
        1 of 1
    """

    def __init__(
        self,
        model: str | PathLike[str] | Segmenter,
        *,
        deadline: float | Literal["auto"] | None = "auto",
        keep: Keep = "newest",
        late: Late = "deliver",
        views: Views | Sequence[Views] = None,
        ground: float | Resolution | None = None,
        process: bool = True,
        standby: bool = False,
        outcomes: Callable[[Outcome], object] | None = None,
        **options: Any,
    ) -> None:
        if deadline == "auto":
            deadline = None if keep == "all" else DEADLINE
        elif deadline is not None:
            deadline = real("deadline", deadline, "seconds, greater than 0", lambda d: 0 < d < float("inf"))
        if late not in ("deliver", "drop"):
            raise BadInput(f"late must be deliver or drop, got {late!r:.40}")
        if outcomes is not None and not callable(outcomes):
            raise BadInput(f"outcomes must be a function, got {outcomes!r:.40}")
        if isinstance(keep, str) and keep not in ("newest", "all"):
            raise BadInput(f"keep must be newest, all or a number of frames, got {keep!r:.40}")
        self.deadline, self.late, self.outcomes = deadline, late, outcomes
        self.blocks = keep == "all"
        self.room = ROOM if self.blocks else 1 if keep == "newest" else whole("keep", keep, 1, MOST_WAITING)
        self.error = ""  # why the last frame that failed has no roads
        rungs_of(views, RUNGS)  # raises BadInput before a model is opened
        self.engine = Supervisor(opener(model, process, options), standby)
        try:
            about = self.engine.about
            self.scaling = Scaling(about.spec, ground)
            self.ladder = Ladder(
                rungs_of(views, default_rungs(len(about.spec.views))), deadline, about.seconds, about.scout
            )
        except BaseException:
            self.engine.close()
            raise
        self.lock = threading.RLock()  # a signal's handler may offer or close
        self.changed = threading.Condition(self.lock)
        self.waiting: deque[tuple[Frame, bytes]] = deque()
        self.results: deque[Roads] = deque()
        self.newest: Roads | None = None
        self.numbers: Counter[str] = Counter()
        self.computing = 0  # frames, 0 or 1
        self.unread = 0  # results that were dropped, because nobody read them
        self.ended = self.closed = self.done = False
        self.thread = threading.Thread(target=self.run, name="dlink-live", daemon=True)
        self.thread.start()

    @property
    def assumes(self) -> str:
        """What is assumed of the frames, in a sentence; empty where nothing is."""
        return self.scaling.assumes

    @property
    def views(self) -> Views:
        """The views that the next frame gets, as far as is known now."""
        return self.ladder.views

    @property
    def state(self) -> Literal["running", "restarting", "closed"]:
        """Whether frames are computed now."""
        if self.closed:
            return "closed"
        return "running" if self.engine.ready else "restarting"

    @property
    def counts(self) -> Counts:
        """What became of the offered frames so far."""
        with self.lock:
            return Counts(**self.numbers, waiting=len(self.waiting) + self.computing)

    def offer(
        self,
        pixels: Pixels,
        *,
        captured: float | None = None,
        pts: float | None = None,
        utc: float | None = None,
        pose: Pose | None = None,
        tag: Any = None,
    ) -> int:
        """Offer a frame. This returns at once, and with keep="all" when there is room.

        Args:
            pixels: uint8 (H, W, 3) RGB, or a function that gives it, called if the frame is computed. An array must not
                change before its turn: a frame whose array was used again fails.
            captured: When the camera took it, seconds of `time.monotonic()`, not of `time.time()`. None: now.
            pts: The video's own time stamp, seconds.
            utc: When the camera took it, seconds since 1970-01-01 UTC.
            pose: The camera at that time.
            tag: Whatever should stay with the frame, such as its place in a recording.

        Returns:
            The frame's id, counted from 0.

        Raises:
            BadInput: The array is not an image of the network, or it was captured in the future.
            Closed: The Live was closed, or no more frames were announced by `end`.
        """
        if not callable(pixels):
            check_image(pixels, self.engine.about.spec)
        now = time.monotonic() if captured is None else past(captured)
        if pose is not None and not isinstance(pose, Pose):
            raise BadInput(f"pose must be a dlink.live.Pose, got {type(pose).__name__}")
        with self.lock:
            while self.blocks and len(self.waiting) >= self.room and not self.closed and not self.ended:
                self.changed.wait(LOOK)
            if self.closed or self.ended:
                raise Closed("this Live is closed" if self.closed else "no more frames can be offered after end()")
            number = self.numbers["offered"]
            frame = Frame(id=number, captured=now, pixels=pixels, pts=pts, utc=utc, pose=pose, tag=tag)
            self.numbers["offered"] += 1
            self.waiting.append((frame, probe(pixels)))
            old = self.waiting.popleft()[0] if len(self.waiting) > self.room else None
            if old:
                self.numbers["replaced"] += 1
            self.changed.notify_all()
        if old:
            self.tell(Outcome(old, "replaced"))
        return frame.id

    def end(self) -> None:
        """Offer no more frames. Those that wait are still computed, and then an iteration ends."""
        with self.lock:
            self.ended = True
            self.changed.notify_all()

    def __iter__(self) -> Iterator[Roads]:
        """Roads in the order in which they are done, until the Live is closed or has ended. Each goes to one reader.

        Up to 16 wait for a reader; then the oldest is dropped, and with keep="all" the network waits.
        """
        while (roads := self.next_roads()) is not None:
            yield roads

    def next_roads(self) -> Roads | None:
        with self.lock:
            while not self.results and not self.done and not self.closed:
                self.changed.wait(LOOK)
            if not self.results:
                return None
            self.changed.notify_all()
            return self.results.popleft()

    def latest(self, newer_than: int = -1, timeout: float = 0.0) -> Roads | None:
        """The newest roads, if their frame's id is greater than `newer_than`.

        Args:
            newer_than: An id, such as that of the roads that are known already.
            timeout: Seconds to wait for newer ones.

        Returns:
            The roads, or None where there are none so new. Where frames fail, `error` says why.
        """
        end = time.monotonic() + timeout
        with self.lock:
            while not (self.newest and self.newest.frame.id > newer_than):
                left = end - time.monotonic()
                if left <= 0 or self.done or self.closed:
                    return None
                self.changed.wait(min(left, LOOK))
            return self.newest

    def close(self) -> None:
        """Free the model. Frames that wait, and the one under way, are left. A second call does nothing."""
        with self.lock:
            self.closed = True
            self.changed.notify_all()
        self.engine.close()
        if threading.current_thread() is not self.thread:
            self.thread.join()

    def __enter__(self) -> "Live":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self) -> None:
        """Compute frames until there are no more."""
        try:
            while taken := self.take():
                self.settle(*taken)
                del taken  # hold no pixels while waiting
        finally:
            self.leave()

    def leave(self) -> None:
        """Count the frames that are left, and let no reader wait any longer."""
        with self.lock:
            left = [frame for frame, _ in self.waiting]
            self.waiting.clear()
            self.numbers["left"] += len(left)
            self.done = True
            self.changed.notify_all()
        for frame in left:
            self.tell(Outcome(frame, "left"))

    def take(self) -> tuple[Frame, bytes] | None:
        """The next frame, once the engine can compute it; None where there is none any more."""
        while not self.closed:
            ready = self.engine.wait(LOOK)
            with self.lock:
                if not self.waiting and not self.ended and not self.closed:
                    self.changed.wait(LOOK)
                if self.closed or (self.ended and not self.waiting):
                    return None
                if ready and self.engine.ready and self.waiting:
                    self.computing = 1
                    self.changed.notify_all()
                    return self.waiting.popleft()
        return None

    def settle(self, frame: Frame, before: bytes) -> None:
        """Compute a frame, count it and deliver its roads."""
        begun = time.monotonic()
        if self.late == "drop" and self.deadline is not None and begun - frame.captured > self.deadline:
            self.finish(Outcome(frame, "expired"))
            return
        try:
            roads = self.compute(frame, before, begun)
        except Closed as e:
            self.finish(Outcome(frame, "left") if self.closed else Outcome(frame, "failed", error=str(e)))
        except BaseException as e:  # of a caller's function, too, which may call sys.exit
            self.finish(Outcome(frame, "failed", error=f"{type(e).__name__}: {e}"))
        else:
            self.finish(Outcome(frame, "late" if roads.late else "roads", roads))

    def compute(self, frame: Frame, before: bytes, begun: float) -> Roads:
        spec, halo = self.engine.about.spec, self.engine.about.halo
        image = pixels_of(frame, before)
        check_image(image, spec)
        height, width = image.shape[:2]
        scale = self.scaling.scale(frame, height, width)
        small = scaled(image, scale)
        tiles = len(cover(small.shape[0], small.shape[1], spec.tile, halo))
        views, predicted = self.ladder.choose(begun, begun - frame.captured, tiles)
        made = self.engine.levels(small, views, predicted)
        levels = resized(made.levels, height, width)
        done = time.monotonic()
        late = self.deadline is not None and done - frame.captured > self.deadline
        self.learn(made, tiles, begun, done, late, share_looked_at(views, made))
        return Roads(
            frame=frame,
            image=image,
            levels=levels,
            threshold=self.engine.about.threshold,
            rung=views,
            views=made.views,
            scale=scale,
            begun=begun,
            done=done,
            late=late,
        )

    def learn(self, made: Computed, tiles: int, begun: float, done: float, late: bool, share: float) -> None:
        extra = max(0.0, done - begun - made.seconds)
        self.ladder.learn(done, tiles, made.views, made.seconds, extra, made.doubtful, share)
        if late:
            self.ladder.was_late(done)

    def finish(self, outcome: Outcome) -> None:
        """Count the frame that was being computed, and deliver its roads."""
        roads = outcome.roads if outcome.what == "roads" or self.late == "deliver" else None
        self.error = outcome.error or self.error
        with self.lock:
            while self.blocks and roads and len(self.results) >= UNREAD and not self.closed:
                self.changed.wait(LOOK)
            self.computing = 0
            self.numbers[outcome.what] += 1
            if roads:
                self.newest = roads
                self.results.append(roads)
                if len(self.results) > UNREAD:
                    self.results.popleft()
                    self.unread += 1
            self.changed.notify_all()
        self.tell(outcome)

    def tell(self, outcome: Outcome) -> None:
        if self.outcomes:
            try:
                self.outcomes(outcome)
            except Exception:
                log.exception("the function for outcomes failed at frame %d", outcome.frame.id)


def past(captured: float) -> float:
    """A time of `time.monotonic()` that is not in the future. BadInput for another one, such as a `time.time()`."""
    latest = time.monotonic() + AHEAD
    return real(
        "captured", captured, "seconds of time.monotonic(), not later than now", lambda t: -math.inf < t <= latest
    )
