"""An engine in a process of its own, dlink.live.worker, and the memory that it shares with this process."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from dlink.live.engine import About, Computed, Lost
from dlink.live.frame import Image
from dlink.live.wire import (
    ADAPTIVE,
    COMPUTE,
    DONE,
    ENDS,
    MEMORY,
    Memory,
    Reply,
    Request,
    needed,
    new_memory,
    receive_reply,
    send_request,
)
from dlink.runtime import (
    BadInput,
    BadModel,
    BadPlan,
    Closed,
    EngineFailed,
    GpuFailed,
    Mismatch,
    NoEngine,
    Spec,
    Untrusted,
)
from dlink.runtime.segmenter import Views

# The worker finds modules where this process does. `-m` would look in the current folder first, whatever lies there.
WORKER = "import sys; sys.path[:] = {path!r}; from dlink.live.worker import main; sys.exit(main())"
OPENING = 300.0  # seconds that a worker may take to open a model
GOES = 2.0  # seconds that a worker may take to end by itself
ERRORS = {
    kind.__name__: kind
    for kind in (BadInput, BadModel, BadPlan, Closed, GpuFailed, Mismatch, ModuleNotFoundError, NoEngine, Untrusted)
} | {"FileNotFoundError": BadInput, "OSError": BadInput, "PermissionError": BadInput}


class Process:
    """A worker as an Engine. It is open when this returns.

    Args:
        path: The model file.
        options: Of open_model.

    Raises:
        Lost: The worker ended before the model was open.
        DlinkError: The model cannot be opened; the error is the worker's own.
    """

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        if not hasattr(socket, "send_fds"):
            raise BadInput("this system cannot give memory to another process; use process=False")
        self.memory: Memory | None = None
        self.ids = count(1)
        self.lock = threading.Lock()  # of closing
        self.closed = False
        self.code: int | None = None  # with which the worker had ended before it was closed
        self.link, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    WORKER.format(path=sys.path),
                    path,
                    "--fd",
                    str(theirs.fileno()),
                    "--options",
                    json.dumps(dict(options), default=os.fspath),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        try:
            self.about = about_of(self.answer(OPENING), path)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    def levels(self, image: Image, views: Views, patience: float) -> Computed:
        height, width, channels = image.shape
        memory = self.memory_for(height, width, channels)
        memory.image(height, width, channels)[:] = image
        number = ADAPTIVE if views == "adaptive" else len(self.about.spec.views) if views is None else int(views)
        request = Request(COMPUTE, next(self.ids), height, width, channels, number)
        self.send(request)
        reply = self.answer(patience)
        if reply.id != request.id:
            raise Lost(f"the worker answered image {reply.id} instead of {request.id}")
        levels = np.array(memory.levels(height, width, channels))
        return Computed(levels, reply.views, reply.doubtful, reply.seconds)

    def memory_for(self, height: int, width: int, channels: int) -> Memory:
        """The shared memory, made larger where the picture needs it."""
        size = needed(height, width, channels)
        if self.memory is None or self.memory.size < size:
            fd = new_memory(size)
            try:
                self.memory = Memory(fd, size)
                self.send(Request(MEMORY, size=size), fd)
            finally:
                os.close(fd)
        return self.memory

    def send(self, request: Request, fd: int | None = None) -> None:
        try:
            self.link.settimeout(GOES)
            send_request(self.link, request, fd)
        except OSError as e:
            raise Lost(f"the worker {self.end()}") from e

    def answer(self, patience: float) -> Reply:
        """The worker's next reply, within so many seconds; an error that it reports is raised."""
        try:
            self.link.settimeout(patience)
            reply = receive_reply(self.link)
        except TimeoutError as e:
            raise Lost(f"the worker gave no answer within {patience:.1f} s; it was ended") from e
        except (EOFError, OSError) as e:
            raise Lost(f"the worker {self.end()}") from e
        if reply.status == DONE:
            return reply
        name, _, text = reply.text.partition(": ")
        if reply.status == ENDS and reply.id:
            raise Lost(text)
        raise ERRORS.get(name, EngineFailed)(text)

    def end(self) -> str:
        """How the process ended, in words."""
        code = self.code
        if not self.closed:
            try:
                code = self.process.wait(GOES)
            except subprocess.TimeoutExpired:
                return "closed its socket"
        if code is None:
            return "was closed"
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def alive(self) -> bool:
        return not self.closed and self.process.poll() is None

    def close(self) -> None:
        with self.lock:
            if self.closed:
                return
            self.code, self.closed = self.process.poll(), True
        self.process.kill()  # a stopped or stuck one too; it owns nothing that would be lost
        self.process.wait()
        self.link.close()


def about_of(reply: Reply, path: Path) -> About:
    """What a worker says of its model."""
    values = json.loads(reply.text)
    spec = Spec.of_values(values["spec"], path)
    return About(
        spec, values["halo"], values["threshold"], values["engine"], values["seconds"], values.get("scout", 0.0)
    )
