"""Who does the blocks of a map: worker processes of this machine, a Dask cluster, or a Ray cluster.

An engine is one function: it is given a task and blocks, and yields what became of each, in any order. Which block goes
where, and what happens when a machine is lost, is the engine's own affair; Dask and Ray repeat lost work by themselves.
Blocks are files, so work that was done twice changes nothing. All workers see the job's folder, the model and the
rasters under the same paths.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from dlink.maps.job.local_workers import LocalWorkers
from dlink.maps.job.tasks import Done, Job, Task
from dlink.runtime.errors import BadInput, DlinkError

ENGINES = ("local", "dask", "ray")
RETRIES = 3  # of a block whose worker was lost
PATIENCE = 20  # seconds, for a cluster to answer
AGAIN = "run this again, and it goes on"

Run: TypeAlias = Callable[[Task, Job, Sequence[int]], Iterator[Done]]


class EngineLost(DlinkError, RuntimeError):
    """The cluster that did the work is gone."""


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
        return dask(how.address, workers)
    if how.engine == "ray":
        return ray(how.address, workers)
    return local(workers)


@contextmanager
def local(workers: int) -> Iterator[Run]:
    """Worker processes of this machine."""
    with LocalWorkers(workers) as pool:
        yield pool.run


@contextmanager
def dask(address: str | None, workers: int) -> Iterator[Run]:
    """The workers of a Dask cluster. One of this machine has a process for each, in which one task runs at a time."""
    import distributed

    with ExitStack() as stack:
        try:
            where = address or stack.enter_context(
                distributed.LocalCluster(
                    n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
                )
            )
            client = stack.enter_context(distributed.Client(where, timeout=PATIENCE))
        except (OSError, ValueError) as e:
            raise EngineLost(f"--engine-address {address}: no Dask scheduler answers; {e}") from e

        def run(task: Task, job: Job, blocks: Sequence[int]) -> Iterator[Done]:
            futures = client.map(partial(task, job), blocks, pure=False, retries=RETRIES)
            try:
                for future in distributed.as_completed(futures):
                    yield future.result()
            except (CancelledError, OSError, distributed.scheduler.KilledWorker) as e:
                raise EngineLost(f"the Dask cluster is gone, or its workers die: {e}; {AGAIN}") from e

        yield run


@contextmanager
def ray(address: str | None, workers: int) -> Iterator[Run]:
    """The workers of a Ray cluster."""
    import ray

    try:
        if address:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as e:
        raise EngineLost(f"--engine-address {address}: no Ray cluster answers; {e}") from e

    def run(task: Task, job: Job, blocks: Sequence[int]) -> Iterator[Done]:
        remote = ray.remote(task).options(num_cpus=1, max_retries=RETRIES)
        waiting = [remote.remote(job, block) for block in blocks]
        try:
            while waiting:
                done, waiting = ray.wait(waiting)
                yield from ray.get(done)
        except ray.exceptions.RayError as e:
            raise EngineLost(f"the Ray cluster is gone, or its workers die: {e}; {AGAIN}") from e

    try:
        yield run
    finally:
        ray.shutdown()
