"""The blocks of a map are the same whoever makes them, also where workers or a whole cluster are killed."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from dlink.maps.job import dask_engine
from dlink.maps.job import run as map_run
from dlink.maps.job.engines import EngineOptions, engine_of
from dlink.maps.job.tasks import Done, EngineLost, Job
from dlink.runtime.errors import BadInput
from tests.maps.job.processes import PATIENCE, run, start, wait_for, wait_for_blocks
from tests.maps.job.scenes import blocks_of, cut, leftovers, made, options, roads, scene


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A folder with a model, rasters, and their map."""
    folder = tmp_path_factory.mktemp("ready")
    model = roads(folder / "roads.onnx")
    cut(folder / "parts", scene((300, 400)))
    made(folder / "map", model, [folder / "parts"], options(windows=2))
    return folder


def args(ready, folder, *more):
    return [ready / "roads.onnx", ready / "parts", "-o", folder, "--windows", 2, *more]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def ended(*processes):
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("lost", ["worker", "scheduler"])
def test_a_dask_cluster_makes_the_same_blocks_and_may_lose_a_worker_or_all(ready, tmp_path, lost):
    folder, address = tmp_path / "map", f"tcp://127.0.0.1:{free_port()}"
    dask = [sys.executable, "-m"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    scheduler = subprocess.Popen(
        [*dask, "distributed.cli.dask_scheduler", "--no-dashboard", "--host", address], **quiet
    )
    worker = [*dask, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    workers = [subprocess.Popen(worker, **quiet) for _ in range(2)]
    with ended(scheduler, *workers):
        process = start(*args(ready, folder, "--engine", "dask", "--engine-address", address))
        wait_for_blocks(folder, 3)
        (workers[0] if lost == "worker" else scheduler).send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
        if lost == "worker":
            assert process.returncode == 0, errors
    if lost == "scheduler":
        assert process.returncode == 1
        assert errors.splitlines()[-1].startswith("Error: the Dask cluster is gone")
        run("-o", folder)
    assert blocks_of(folder) == blocks_of(ready / "map")
    assert leftovers(folder) == []


def test_a_ray_cluster_makes_the_same_blocks_and_may_lose_a_worker(ready, tmp_path):
    process = start(*args(ready, tmp_path / "map", "--engine", "ray", "--workers", 2))
    wait_for_blocks(tmp_path / "map", 3)

    def tasks():
        found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout
        rows = [line.split(None, 2) for line in found.splitlines()[1:]]
        raylets = [pid for pid, parent, _ in rows if parent == str(process.pid)]
        return [int(pid) for pid, parent, what in rows if what.startswith("ray::roads_task") and parent in raylets]

    wait_for(tasks, "a task")
    os.kill(tasks()[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert blocks_of(tmp_path / "map") == blocks_of(ready / "map")


def test_a_block_that_kills_its_workers_is_named_after_a_few():
    with (
        engine_of(EngineOptions(), 1) as run,
        pytest.raises(EngineLost, match="3 workers died of block 7 .exit code 5."),
    ):
        list(run(die, Job("", "", "", 1), [7]))


def test_there_is_a_worker_for_each_core_where_memory_is_enough(monkeypatch):
    for free, cores, threads, expected in (
        (None, 8, 1, 8),
        (64 << 30, 8, 2, 4),
        (5 << 30, 8, 1, 5),
        (1 << 20, 8, 1, 1),
    ):
        monkeypatch.setattr(map_run, "free_memory", lambda free=free: free)
        monkeypatch.setattr(map_run, "cores", lambda cores=cores: cores)
        assert map_run.workers_of(EngineOptions(), Job("", "", "", threads)) == expected


def die(job, block):
    os._exit(5)


def test_local_workers_yield_every_block_once():
    with engine_of(EngineOptions(), 3) as run:
        for count in (0, 1, 2, 50):
            assert sorted(done.block for done in run(name, Job("", "", "", 1), range(count))) == list(range(count))


def name(job, block):
    return Done(block)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"engine": "slurm"}, "--engine slurm: expected local, dask, ray"),
        ({"address": "tcp://a:1"}, "--engine-address is of a cluster"),
        ({"engine": "dask", "address": "tcp://a:1", "workers": 2}, "the cluster at --engine-address has its own"),
    ],
    ids=["unknown", "no cluster", "workers of a cluster"],
)
def test_engine_options_that_do_not_fit_are_refused(given, words):
    with pytest.raises(BadInput, match=words):
        EngineOptions(**given)


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setattr(dask_engine, "PATIENCE", 0.3)
    how = EngineOptions(engine="dask", address=f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(EngineLost, match="no Dask scheduler answers"), engine_of(how, 1):
        pass
