"""How many tiles of a job's images are computed side by side on a CPU.

A model with two slots gives each of them half of the threads. Beside another busy process that is faster, and on a
quiet machine no slower, as long as both slots have work. While one has none, half of the processor is idle; so an image
of one tile takes twice as long. DESIGN.md has the figures.
"""

from collections.abc import Sequence

from dlink.imagery.formats import check_format
from dlink.imagery.images import raster_source
from dlink.imagery.jobs import Job
from dlink.imagery.kinds import raster_reason
from dlink.runtime.errors import BadInput
from dlink.runtime.segmenter import default_halo
from dlink.runtime.spec import Spec
from dlink.runtime.windows import cover

SLOTS = 2  # measured on two cores; more slots need more memory, and cores that they divide
EVEN = 1.02  # how much more turns than full ones are still even: it costs 2 % of the time


def slots_for(jobs: Sequence[Job], spec: Spec, halo: int | None, threads: int | None = None) -> int:
    """SLOTS if both have work nearly all the time, else 1.

    Pictures follow each other without a pause, so several of them count by their number. A raster ends before the next
    image begins. A number of threads that is odd can't be halved.
    """
    if threads and threads % SLOTS:
        return 1
    rasters = [windows_of(job, spec, halo) for job in jobs if job.geo]
    pictures = [job for job in jobs if not job.geo]
    if pictures:
        rasters.append(windows_of(pictures[0], spec, halo) if len(pictures) == 1 else len(pictures))
    turns = sum(-(-count // SLOTS) for count in rasters)
    return SLOTS if SLOTS * turns <= EVEN * sum(rasters) else 1


def windows_of(job: Job, spec: Spec, halo: int | None) -> int:
    """The windows of an image, from its header. 1 if that can't be read: segmenting the image says why."""
    try:
        if job.geo or raster_reason(job.image):
            with raster_source(job.image, job.reading.of_network(spec), "") as source:
                shape = source.shape
        else:
            shape = check_format(job.image, job.image.read_bytes()) or (1, 1)
        return len(cover(*shape, spec.tile, default_halo(spec) if halo is None else halo))
    except (BadInput, OSError):
        return 1
