"""A worker process: reads tasks from its standard input, writes what became of them to its standard output.

`python -m dlink.maps.job.worker` is started by local_workers.py. It ends at once when its input ends, also within a
block, because then its parent is gone.
"""

import os
import sys
import threading
from queue import SimpleQueue
from typing import Any

from dlink.maps.job.local_workers import receive, send


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    tasks: SimpleQueue[Any] = SimpleQueue()

    def listen() -> None:
        try:
            while True:
                tasks.put(receive(sys.stdin.buffer))
        except EOFError:
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        task, job, block = tasks.get()
        send(answers, task(job, block))


if __name__ == "__main__":
    main()
