"""A Dask cluster as an engine of maps. Needs distributed."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from functools import partial

import distributed

from dlink.maps.job.tasks import AGAIN, RETRIES, Done, EngineLost, Job, Task

PATIENCE = 20  # seconds, for a cluster to answer


@contextmanager
def dask(address: str | None, workers: int) -> Iterator[Callable[[Task, Job, Sequence[int]], Iterator[Done]]]:
    """The workers of a Dask cluster. One of this machine has a process for each, in which one task runs at a time."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a lost scheduler is one line of ours
    with ExitStack() as stack:
        try:
            where = address or stack.enter_context(own_cluster(workers))
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


def own_cluster(workers: int) -> distributed.LocalCluster:
    """A cluster of this machine. Its processes ignore Ctrl-C, which is for this one; it ends them."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None
    try:
        return distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        )
    finally:
        if here:
            signal.signal(signal.SIGINT, before)
