"""The engine as a process of its own: `python -m dlink.live.worker MODEL --socket PATH`, or for a Live `--fd NUMBER`.

A crash of the engine, or one that is stuck, then costs a frame and not the application. wire.py describes the messages,
for programs in other languages too. With --socket the worker serves one program after another.
"""

import argparse
import errno
import json
import os
import select
import signal
import socket
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from dlink.live.engine import Lost
from dlink.live.local import Local
from dlink.live.wire import (
    ADAPTIVE,
    COMPUTE,
    DONE,
    ENDS,
    MEMORY,
    NO_ROADS,
    Memory,
    Reply,
    Request,
    needed,
    receive_request,
    send_reply,
)
from dlink.runtime import BadInput, DlinkError, open_model
from dlink.runtime.segmenter import Views


def main() -> int:
    parser = argparse.ArgumentParser("python -m dlink.live.worker", description="Compute roads for another program.")
    parser.add_argument("model")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--fd", type=int, help="a socket that was inherited")
    way.add_argument("--socket", type=Path, help="listen at this path")
    parser.add_argument("--options", type=json.loads, default={}, help="of open_model, as JSON")
    args = parser.parse_args()
    if args.fd is not None:
        for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the application ends this
            signal.signal(number, signal.SIG_IGN)
        link = socket.socket(fileno=args.fd)
        threading.Thread(target=end_with, args=(link,), daemon=True).start()
        return attend(link, args.model, args.options)
    try:
        return listen(args.socket, args.model, args.options)
    except DlinkError as e:
        print(f"Error: {e}", file=sys.stderr)
        return 1


def end_with(link: socket.socket) -> None:
    """End this process when the application has, also while the engine is busy or stuck."""
    poll = select.poll()
    poll.register(link, select.POLLHUP)
    while not any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll()):
        pass
    os._exit(1)


def attend(link: socket.socket, path: str, options: dict[str, object]) -> int:
    """Open the model and serve one application. An error of the opening is its first message."""
    try:
        engine = Local(open_model(path, **options))  # type: ignore[arg-type] # the application's open_model checked them
    except (DlinkError, OSError, ModuleNotFoundError) as e:
        send_reply(link, Reply(ENDS, 0, text=f"{type(e).__name__}: {e}"))
        return 1
    with engine.model:
        return serve(link, engine)


def listen(path: Path, model: str, options: dict[str, object]) -> int:
    """Serve one application after another at a path."""
    engine = Local(open_model(model, **options))  # type: ignore[arg-type]
    with engine.model, socket.socket(socket.AF_UNIX) as server:
        bind(server, path)
        server.listen(1)
        print(f"{engine.about.engine} serves {model} at {path}", file=sys.stderr, flush=True)
        try:
            while True:
                link, _ = server.accept()
                with link:
                    if serve(link, engine):
                        return 1
        except KeyboardInterrupt:
            return 0
        finally:
            path.unlink(missing_ok=True)


def bind(server: socket.socket, path: Path) -> None:
    """Bind to a path that only this user may connect to. A socket that an earlier worker left there is replaced."""
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) != errno.ECONNREFUSED:
                raise BadInput(f"{path}: a worker serves there; end it, or name another path")
        path.unlink()
    before = os.umask(0o177)
    try:
        server.bind(str(path))
    except OSError as e:
        raise BadInput(f"{path}: cannot listen there: {e.strerror or e}; name a new path in an existing folder") from e
    finally:
        os.umask(before)


def serve(link: socket.socket, engine: Local) -> int:
    """Answer until the application leaves: 0. Or until the engine is lost: 1."""
    about = asdict(engine.about) | {"spec": json.loads(engine.about.spec.to_json()), "pid": os.getpid()}
    memory: Memory | None = None
    try:
        send_reply(link, Reply(DONE, 0, text=json.dumps(about)))
        while True:
            request, fd = receive_request(link)
            if request.kind == MEMORY and fd is not None:
                memory = taken(request, fd)
                continue
            reply = answered(request, memory, engine)
            send_reply(link, reply)
            if reply.status == ENDS:
                return 1
    except (EOFError, ConnectionError):
        return 0
    except DlinkError as e:
        print(f"Error: {e}", file=sys.stderr)
        return 0


def taken(request: Request, fd: int) -> Memory:
    """The memory that came with a request."""
    try:
        size = os.fstat(fd).st_size
        if not 0 < request.size <= size:  # to read beyond the file's end would kill this process
            raise BadInput(f"memory of {request.size} bytes was announced, and its file has {size}")
        return Memory(fd, request.size)
    finally:
        os.close(fd)


def answered(request: Request, memory: Memory | None, engine: Local) -> Reply:
    """Compute the image in the memory."""
    shape = request.height, request.width, request.channels
    try:
        if request.kind != COMPUTE or memory is None or not all(shape) or needed(*shape) > memory.size:
            raise BadInput(f"an image of {shape} needs {needed(*shape)} bytes of memory; the program gave less")
        views: Views = "adaptive" if request.views == ADAPTIVE else request.views
        made = engine.levels(memory.image(*shape), views)
        memory.levels(*shape)[:] = made.levels
    except Lost as e:
        return Reply(ENDS, request.id, text=f"{type(e).__name__}: {e}")
    except DlinkError as e:
        return Reply(NO_ROADS, request.id, text=f"{type(e).__name__}: {e}")
    return Reply(DONE, request.id, made.seconds, made.views, made.doubtful)


if __name__ == "__main__":
    sys.exit(main())
