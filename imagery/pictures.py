"""From a picture to its mask and overlay. Needs OpenCV.

A mask is a PNG, uint8 (H, W), 255 where there is road and 0 elsewhere. Probabilities are a 16-bit PNG, 65535 for 1.

Pixels come from read_image. A JPEG with an EXIF orientation is turned first, so its mask lies as viewers show the JPEG.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.imagery.images import Image, read_with_tags, shown, write_image
from dlink.imagery.jobs import Job, OutputOptions
from dlink.imagery.notes import say, unknown_resolution
from dlink.imagery.reading import TARGET_TAG
from dlink.runtime.backend import Roads
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import Count, ignore
from dlink.runtime.segmenter import Mask, Segmenter, as_mask
from dlink.runtime.windows import Span, Window, cover, spans

COLOUR = (255, 0, 255)  # of roads in an overlay: magenta, which the ground seldom is
# An overlay's new value for each value of a road pixel, (256, 1, 3).
TINT = ((np.arange(256)[:, None, None] * 6 + np.array(COLOUR) * 4) // 10).astype(np.uint8)
LARGE = 50_000_000  # pixels; from this size on, reading, writing and painting take seconds each
STRIPE = 1024  # rows

Doing: TypeAlias = Callable[[str], None]  # called with the name of a step that takes seconds, before it begins


def begin(doing: Doing, what: str, height: int, width: int) -> None:
    """Announce a step if so many pixels make it long."""
    if height * width >= LARGE:
        doing(f"{what} {width} x {height} px")


def segment_picture(
    job: Job, model: Segmenter, how: OutputOptions, tick: Count = ignore, doing: Doing = ignore
) -> None:
    """Write the mask or the probabilities of a picture, and its overlay if the job has one.

    Args:
        job: The image and its outputs, from find_jobs; one that does not say where it lies.
        model: The open model.
        how: What to write.
        tick: Called with (windows done, all windows).
        doing: Called with the name of each long step of a picture of 50 megapixels or more.

    Raises:
        BadInput: The picture is damaged or cannot be read.
        EngineFailed: The engine failed, or a result is not a probability.
        OSError: An output cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from dlink.imagery.labels import read_label
        >>> from dlink.imagery.jobs import OutputOptions, find_jobs
        >>> from dlink.imagery.pictures import segment_picture
        >>> from dlink.runtime import open_model
        >>> how = OutputOptions(views=1)
        >>> [job] = find_jobs([Path("tiles/104_sat.png")], Path("roads.png"), how)
        >>> with open_model("roads.onnx") as model:
        ...     segment_picture(job, model, how)
        >>> int(read_label(Path("roads.png")).sum())  # road pixels
        3000
    """
    begin_picture(job, model, how, tick, doing)()


def begin_picture(job: Job, model: Segmenter, how: OutputOptions, tick: Count, doing: Doing) -> Callable[[], None]:
    """Read a picture and start on it. What this returns waits for the roads and writes them.

    So the next picture is read, and its first tiles are computed, while this one's last tiles are.
    """
    reading = job.reading.of_network(model.spec)
    try:
        image, tags = read_with_tags(job.image, reading, partial(begin, doing, "reading"))
    except OSError as e:  # concerns this image only, unlike an output that can't be written
        raise BadInput(f"{job.image}: {e.strerror}") from e
    if reading.metres:
        say(job.image, unknown_resolution(reading.metres))
    shape = image.shape[0], image.shape[1]
    begin(doing, "finding the roads in", *shape)
    begun = pieces(model, lambda w: image[w.outer], shape, how, tick)
    return partial(finish_picture, job, model, how, doing, image, tags, begun)


def finish_picture(
    job: Job, model: Segmenter, how: OutputOptions, doing: Doing,
    image: Image, tags: Mapping[str, str], begun: Iterator[tuple[Window, Roads]],
) -> None:  # fmt: skip
    """Write the roads of a picture that is under way."""
    shape = image.shape[0], image.shape[1]
    roads = np.empty(shape, np.float32 if how.probability else np.uint8)
    for window, core in begun:
        roads[window.core] = core
    job.out.parent.mkdir(parents=True, exist_ok=True)
    begin(doing, "writing", *shape)
    write_image(job.out, levels(roads) if how.probability else roads, {**tags, TARGET_TAG: model.spec.target})
    if job.overlay:
        begin(doing, "painting", *shape)
        image = np.ascontiguousarray(shown(image))
        for rows in stripes(shape[0]):
            image[rows.core] = paint(image[rows.core], mask_of(roads[rows.start : rows.stop], model, how), rows.inner)
        write_image(job.overlay, image)


def levels(roads: Roads) -> NDArray[np.uint16]:
    """Probabilities in 16 bits, 65535 for 1."""
    out = np.empty(roads.shape, np.uint16)
    for rows in stripes(len(roads)):
        out[rows.core] = np.rint(roads[rows.core] * 65535)
    return out


def stripes(height: int) -> list[Span]:
    """A picture's rows in stripes with one row more on either side, so that no copy of a large picture is needed."""
    return spans(height, STRIPE, 1)


def pieces(
    model: Segmenter, read: Callable[[Window], Image], shape: tuple[int, ...], how: OutputOptions, tick: Count
) -> Iterator[tuple[Window, Roads]]:
    """Segmenter.pieces of an image (H, W) in the output form, under way, with a tick after each piece."""
    height, width = shape
    total = len(cover(height, width, model.spec.tile, model.halo))
    begun = model.begun(read, cover(height, width, model.spec.tile, model.halo), how.views, how.form)

    def ticking() -> Iterator[tuple[Window, Roads]]:
        for done, piece in enumerate(begun, 1):
            yield piece
            tick(done, total)

    return ticking()


def mask_of(roads: Roads, model: Segmenter, how: OutputOptions) -> Mask:
    """The mask, from roads in the output form."""
    return as_mask(roads, model.threshold) if how.probability else roads


def paint(image: Image, mask: Mask, inner: slice = slice(None)) -> Image:
    """The image (H, W, 3) with its roads tinted and a line one pixel wide along their inside.

    The mask may have further rows above and below; `inner` are the image's.
    """
    line = ((mask > 0) & (cv2.erode(mask, np.ones((3, 3), np.uint8)) == 0))[inner]
    out: Image = image.copy()
    cv2.copyTo(cv2.LUT(image, TINT), np.ascontiguousarray(mask[inner]), out)
    out[line] = COLOUR
    return out
