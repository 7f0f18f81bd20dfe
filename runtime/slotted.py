"""Computes several tiles side by side: a HostBackend and a thread for each slot.

An engine for CPUs that computes one tile on all of its threads makes them wait for each other at every layer, and where
another process takes a core, all of them wait for the slowest. Tiles that are computed side by side wait for nothing.
life.py has the rules for closing. A slot's thread closes its own HostBackend when it ends, so nobody waits for itself.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TypeAlias
from weakref import finalize

import numpy as np

from dlink.runtime.backend import HostBackend, OutputForm, Probs, Roads, Running, Spent, Tiles, check_tiles
from dlink.runtime.errors import Closed
from dlink.runtime.life import CLOSED, WORKERS, check_process
from dlink.runtime.views import check_views

Work: TypeAlias = Callable[[HostBackend], Roads]


@dataclass(eq=False)
class Task:
    """What a slot is to do."""

    work: Work
    begun: threading.Event = field(default_factory=threading.Event)
    future: "Future[Roads]" = field(default_factory=Future)


Tasks: TypeAlias = "SimpleQueue[Task | None]"


class Slotted:
    """A Backend of several HostBackends of one network, which compute side by side.

    Args:
        hosts: One a slot, at least one. They have equal options, and their networks may run at the same time. The
            Slotted closes them.
    """

    def __init__(self, hosts: Sequence[HostBackend]) -> None:
        self.hosts = tuple(hosts)
        self.slots = len(self.hosts)
        self.spec, self.max_tiles = hosts[0].spec, hosts[0].max_tiles
        self.engine, self.executed = hosts[0].engine, hosts[0].executed
        self.pid, self.closed = os.getpid(), False
        self.tasks: Tasks = SimpleQueue()
        # The threads live from here on, because Python starts none while the process ends. They do not refer to the
        # Slotted, so one that is dropped is noticed.
        self.threads = tuple(
            threading.Thread(target=serve, args=(self.tasks, host), name="dlink-slot", daemon=True)
            for host in self.hosts
        )
        finalize(self, end, self.tasks, self.slots).atexit = False  # at exit life.close_all closes the hosts
        WORKERS.update(self.threads)  # a destructor that runs on one of them may close a model
        for thread in self.threads:
            thread.start()

    @property
    def spent(self) -> Spent:
        """The time of all slots so far. Two that compute for a second have spent two."""
        each = [host.spent for host in self.hosts]
        return Spent(sum(s.prepare for s in each), sum(s.network for s in each), sum(s.undo for s in each))

    def tiles_per_batch(self, views: Sequence[int] | None = None) -> int:
        return self.max_tiles

    def start(
        self, tiles: Tiles, views: Sequence[int] | None = None, form: OutputForm = "probability", threshold: float = 0.5
    ) -> Running:
        check_views(self.spec.views if views is None else views)
        check_tiles(tiles, self.spec, self.max_tiles)
        pixels = np.array(tiles)  # a copy: the caller's may change
        return self.on_a_slot(lambda host: host.start(pixels, views, form, threshold)())

    def on_a_slot(self, work: Work) -> Running:
        """Let a slot do some work. Waits until it has begun, so there are never more runs than slots."""
        check_process(self.pid)
        task = Task(work)
        self.tasks.put(task)
        if self.closed:  # looked at after `put`: `close` sets it before it ends the threads
            raise Closed(CLOSED)
        task.begun.wait()
        return task.future.result

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        prob: Probs = self.start(tiles, views)()
        return prob

    def close(self) -> None:
        if os.getpid() != self.pid:
            return
        self.closed = True
        for host in self.hosts:
            host.closing = True  # its run ends before the next view
        end(self.tasks, self.slots)
        if threading.current_thread() not in self.threads:
            for thread in self.threads:
                thread.join()


def serve(tasks: Tasks, host: HostBackend) -> None:
    """A slot's thread: do tasks until there is a None, then free the network."""
    while (task := tasks.get()) is not None:
        carry_out(task, host)
        del task  # hold no pixels while waiting
    host.close()


def carry_out(task: Task, host: HostBackend) -> None:
    """Do a task; its future gets the result or the error."""
    task.begun.set()
    try:
        task.future.set_result(task.work(host))
    except BaseException as e:
        task.future.set_exception(e)
    finally:
        del task  # an error refers to this frame, and would refer to itself


def end(tasks: Tasks, slots: int) -> None:
    """Let the slots' threads end after the tasks that wait."""
    for _ in range(slots):
        tasks.put(None)
