"""Who does the blocks of a map: worker processes of this machine, a Dask cluster, or a Ray cluster.

An engine is one function: it is given a task and blocks, and yields what became of each, in any order. Which block goes
where, and what happens when a machine is lost, is the engine's own affair; Dask and Ray repeat lost work by themselves.
Blocks are files, so work that was done twice changes nothing. All workers see the job's folder, the model and the
rasters under the same paths.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from dlink.maps.job.local_workers import LocalWorkers
from dlink.maps.job.tasks import Done, Job, Task
from dlink.runtime.errors import BadInput

ENGINES = ("local", "dask", "ray")

Run: TypeAlias = Callable[[Task, Job, Sequence[int]], Iterator[Done]]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Who does the work.

    Raises:
        BadInput: The options do not fit together.
    """

    engine: str = "local"
    address: str | None = None  # of a running cluster; None: one of this machine for as long as the map takes
    workers: int | None = None
    threads: int | None = None  # of a worker

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise BadInput(f"--engine {self.engine}: expected {', '.join(ENGINES)}")
        if self.engine == "local" and self.address:
            raise BadInput("--engine-address is of a cluster: give --engine dask or --engine ray too")
        if self.address and self.workers:
            raise BadInput("--workers: the cluster at --engine-address has its own workers; leave it out")


def engine_of(how: EngineOptions, workers: int) -> AbstractContextManager[Run]:
    """The engine, closed at the end of a `with` block. Dask and Ray are imported here."""
    if how.engine == "dask":
        from dlink.maps.job.dask_engine import dask

        return dask(how.address, workers)
    if how.engine == "ray":
        from dlink.maps.job.ray_engine import ray_cluster

        return ray_cluster(how.address, workers)
    return local(workers)


@contextmanager
def local(workers: int) -> Iterator[Run]:
    """Worker processes of this machine."""
    with LocalWorkers(workers) as pool:
        yield pool.run
