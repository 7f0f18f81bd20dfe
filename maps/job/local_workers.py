"""Worker processes of this machine: started once, given one block at a time, started again when they are killed.

A worker reads what to do from its input and ends when that is closed. So it never outlives the process that started it,
however that one ends. It is not in the terminal's group: Ctrl-C reaches the parent alone, which then ends its workers.
"""

import pickle
import selectors
import signal
import struct
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Any

from dlink.maps.job.tasks import Done, EngineLost, Job, Task

DEATHS = 3  # workers that may die of one block
LENGTH = struct.Struct(">Q")


def send(pipe: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message)
    pipe.write(LENGTH.pack(len(data)) + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next message. EOFError if the other side has ended."""
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


class Worker:
    """One process, and the block that it works on."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dlink.maps.job.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.block: int | None = None

    def begin(self, task: Task, job: Job, block: int) -> None:
        self.block = block
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has died, and its output says so
            send(self.process.stdin, (task, job, block))

    @property
    def work(self) -> int:
        assert self.block is not None
        return self.block

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout
        return self.process.stdout

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()


class LocalWorkers:
    """An engine of `count` processes. Use it in a `with` block, whose end kills them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.workers: list[Worker] = []

    def __enter__(self) -> "LocalWorkers":
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            worker.end()
        self.workers.clear()

    def run(self, task: Task, job: Job, blocks: Sequence[int]) -> Iterator[Done]:
        """Do the blocks; yields what became of each, in any order.

        Raises:
            EngineLost: Several workers in a row died of one block.
        """
        waiting, deaths = deque(blocks), Counter[int]()
        while len(self.workers) < min(self.count, len(blocks)):
            self.workers.append(Worker())
        with selectors.DefaultSelector() as ready:
            for worker in self.workers:
                ready.register(worker.output, selectors.EVENT_READ, worker)
                if waiting:
                    worker.begin(task, job, waiting.popleft())
            while any(worker.block is not None for worker in self.workers):
                for key, _ in ready.select():
                    worker = key.data
                    try:
                        done: Done = receive(worker.output)
                    except EOFError:
                        ready.unregister(worker.output)
                        worker = self.replaced(worker, deaths)
                        ready.register(worker.output, selectors.EVENT_READ, worker)
                        worker.begin(task, job, worker.work)
                        continue
                    worker.block = None
                    if waiting:
                        worker.begin(task, job, waiting.popleft())
                    yield done

    def replaced(self, dead: Worker, deaths: Counter[int]) -> Worker:
        """A new worker in the place of one that has died, for the same block."""
        block = dead.block
        dead.end()
        code = dead.process.returncode
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        deaths[-1 if block is None else block] += 1
        if block is None or deaths[block] == DEATHS:
            raise EngineLost(f"{DEATHS} workers died of block {block} ({why}); if memory is short give fewer --workers")
        new = Worker()
        new.block = block
        self.workers[self.workers.index(dead)] = new
        return new
