"""A ground station's loop: frames come in, road masks go out, and masks are never old.

    python examples/embed_in_a_loop.py roads.onnx frames/ masks/ --rate 5   # a folder of pictures, 5 a second
    python examples/embed_in_a_loop.py roads.onnx 0 masks/                  # a camera; or a video, or rtsp://...

Needs pip install 'dlink[cpu]'. A camera does not wait. If frames come faster than roads are found, a queue of frames
grows, and masks come later and later. So at most two frames are under way here, and other frames are dropped: the
newest frame wins, and the age of a mask is bounded. To process every frame in order instead, wait for the oldest
(`finish_oldest`) where this program drops one; that is for a recording, not for a flight.
"""

import argparse
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.imagery.images import read_image, write_image
from dlink.imagery.jobs import find_pictures
from dlink.runtime import BadInput, DlinkError, EngineFailed, NoProbability, Segmenter, open_model

Image: TypeAlias = NDArray[np.uint8]
Frame: TypeAlias = tuple[str, Image]  # a name, and uint8 (H, W, 3) RGB
Show: TypeAlias = Callable[[str, Image], None]  # called with each frame's name and mask

UNDER_WAY = 2  # one is computed while the next one is cut into tiles
RESTARTS = 3  # of the model, before the program gives up


def frames(source: str, rate: float | None) -> Iterator[Frame]:
    """Frames of a folder, a video or a camera: `rate` frames a second if it is given, else as they come."""
    for name, image in from_folder(Path(source)) if Path(source).is_dir() else from_video(source):
        yield name, image
        time.sleep(1 / rate if rate else 0)


def from_folder(folder: Path) -> Iterator[Frame]:
    for path in find_pictures(folder):  # without the labels and masks that may lie among them
        try:
            yield path.stem, read_image(path)
        except BadInput as e:  # one bad frame: report it and continue
            print(f"Error: {e}", file=sys.stderr)


def from_video(source: str) -> Iterator[Frame]:
    video, number = cv2.VideoCapture(int(source) if source.isdecimal() else source), 0
    if not video.isOpened():
        raise BadInput(f"{source}: neither a folder nor a video that OpenCV opens")
    try:
        while (read := video.read())[0]:
            # OpenCV's frames are BGR, and dlink takes RGB. With the colours in the wrong order the roads are wrong too.
            yield f"{number:06}", np.ascontiguousarray(read[1][..., ::-1], np.uint8)
            number += 1
    finally:
        video.release()


def run(model: Segmenter, source: Iterator[Frame], show: Show, count: "Counter[str]") -> None:
    """Show masks until the frames end. `count` counts the frames that were shown, dropped and failed."""
    under_way: deque[tuple[str, Future[Image]]] = deque()  # the oldest first

    def finish_oldest() -> None:
        name, future = under_way.popleft()
        try:
            show(name, future.result())
            count["shown"] += 1
        except NoProbability as e:  # this frame has no roads; the model still works
            print(f"Error: frame {name}: {e}", file=sys.stderr)
            count["failed"] += 1

    for name, image in source:
        while under_way and under_way[0][1].done():
            finish_oldest()
        if len(under_way) < UNDER_WAY:
            under_way.append((name, model.submit(image)))  # returns at once; the image is copied
        else:
            count["dropped"] += 1
    while under_way:
        finish_oldest()


def main() -> int:
    parser = argparse.ArgumentParser(description="Road masks of frames as they come.")
    for name in ("model", "source", "masks"):
        parser.add_argument(name)
    parser.add_argument("--rate", type=float, help="frames a second, of a folder or a recorded video")
    args = parser.parse_args()
    Path(args.masks).mkdir(parents=True, exist_ok=True)

    def show(name: str, mask: Image) -> None:
        write_image(Path(args.masks, f"{name}_mask.png"), mask)
        print(f"{name}: {(mask > 0).mean():.1%} road", flush=True)

    source, count = frames(args.source, args.rate), Counter[str]()
    try:
        while True:
            try:
                # After an exception, also from Ctrl-C, `with` cancels frames that have not begun and frees the model.
                with open_model(args.model) as model:
                    run(model, source, show, count)
                return int(count["failed"] > 0)
            except EngineFailed as e:  # the GPU or OpenVINO failed: this model can't be used again, a new one may work
                print(f"Error: {e}", file=sys.stderr)
                count["restarts"] += 1
                if count["restarts"] > RESTARTS:
                    return 1
    except KeyboardInterrupt:
        return 130  # as in a shell
    except (DlinkError, OSError) as e:  # no such model, no such source, a full disk: a person must act
        print(f"Error: {e}", file=sys.stderr)
        return 1
    finally:
        print(", ".join(f"{count[what]} {what}" for what in ("shown", "dropped", "failed")), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
