"""A Ray cluster as an engine of maps. Needs ray."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ray

from dlink.maps.job.tasks import AGAIN, RETRIES, Done, EngineLost, Job, Task


@contextmanager
def ray_cluster(address: str | None, workers: int) -> Iterator[Callable[[Task, Job, Sequence[int]], Iterator[Done]]]:
    """The workers of a Ray cluster."""
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
