"""Maps in processes of their own, and what is waited for."""

import subprocess
import sys
import time
from pathlib import Path

MAP = "import sys; from dlink.cli.map import map; map(sys.argv[1:])"
PATIENCE = 90  # seconds


def start(*args, **more):
    """`dlink-map` with these arguments, begun."""
    command = [sys.executable, "-c", MAP, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def run(*args, code=0, **more):
    """`dlink-map` with these arguments, done; what it said on stderr."""
    process = start(*args, **more)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    return errors


def wait_for(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def wait_for_blocks(folder, count):
    wait_for(lambda: len(list((folder / "blocks").glob("[!.]*.tif"))) >= count, f"{count} blocks")


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
