"""Roads of a GStreamer pipeline's frames, without a pipe between two programs.

    python examples/gstreamer_appsink.py roads.onnx \
        'nvarguscamerasrc ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert'

Needs GStreamer's own Python (Debian: python3-gi, gir1.2-gst-plugins-base-1.0) and dlink[cpu] for the same Python, as in
an environment of `python3 -m venv --system-site-packages`. The sink keeps one buffer, the newest, as Live does.
"""

import argparse
import sys
import time
from typing import Any

import gi
import numpy as np
from numpy.typing import NDArray

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import Gst, GstApp, GstVideo  # noqa: E402, F401 # GstApp adds the sink's methods

from dlink.live import Live  # noqa: E402

SINK = "videoconvert ! video/x-raw,format=RGB ! appsink name=sink max-buffers=1 drop=true sync=false"
LOOK = Gst.SECOND // 5


def pixels_of(sample: Any) -> NDArray[np.uint8]:
    """uint8 (H, W, 3). A buffer's memory is copied, since GStreamer uses it again; rows are padded to four bytes."""
    info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    done, memory = sample.get_buffer().map(Gst.MapFlags.READ)
    if not done:
        raise RuntimeError("GStreamer cannot map a buffer")
    try:
        stride = info.stride[0]
        rows = np.frombuffer(memory.data, np.uint8, stride * info.height).reshape(info.height, stride)
        image: NDArray[np.uint8] = rows[:, : 3 * info.width].reshape(info.height, info.width, 3).copy()
        return image
    finally:
        sample.get_buffer().unmap(memory)


def captured_at(pipeline: Any, sample: Any) -> float:
    """When the camera took it, on time.monotonic(): what waits within the pipeline counts as age."""
    stamp = sample.get_buffer().pts
    if stamp == Gst.CLOCK_TIME_NONE:
        return time.monotonic()
    running = sample.get_segment().to_running_time(Gst.Format.TIME, stamp)
    now = pipeline.get_clock().get_time() - pipeline.get_base_time()  # GStreamer's clock need not be this one
    return time.monotonic() - max(0, int(now - running)) / int(Gst.SECOND)


def main() -> int:
    parser = argparse.ArgumentParser(description="Roads of a GStreamer pipeline.")
    parser.add_argument("model")
    parser.add_argument("pipeline", help="up to where frames come out")
    parser.add_argument("--frames", type=int, help="end after so many frames with roads")
    args = parser.parse_args()
    Gst.init(None)
    pipeline = Gst.parse_launch(f"{args.pipeline} ! {SINK}")
    sink, done, last = pipeline.get_by_name("sink"), 0, -1
    pipeline.set_state(Gst.State.PLAYING)
    try:
        with Live(args.model) as live:
            while args.frames is None or done < args.frames:
                sample = sink.try_pull_sample(LOOK)
                if sample is None and (sink.is_eos() or failed(pipeline)):
                    break
                if sample:
                    live.offer(pixels_of(sample), captured=captured_at(pipeline, sample))
                if roads := live.latest(newer_than=last, timeout=0 if sample else 0.2):
                    last, done = roads.frame.id, done + 1
                    print(f"{last}: {(roads.mask > 0).mean():.1%} road, {roads.age():.3f} s old", flush=True)
    finally:
        pipeline.set_state(Gst.State.NULL)
    return 0


def failed(pipeline: Any) -> bool:
    message = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
    if message:
        print(f"Error: {message.parse_error()[0].message}", file=sys.stderr)
    return message is not None


if __name__ == "__main__":
    sys.exit(main())
