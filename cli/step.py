"""What every command shares: errors become one line, progress goes to stderr."""

import sys
import time
from pathlib import Path
from typing import Any, Protocol

import click

from dlink.runtime.errors import CheckFailed, DlinkError

QUIET_FOR = 2.0  # seconds before a progress line appears

IN_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
IN_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
IN_PATH = click.Path(exists=True, path_type=Path)
OUT_PATH = click.Path(path_type=Path)


class Views(click.ParamType):  # type: ignore[type-arg]
    """A number of views, or adaptive."""

    name = "views"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "adaptive" or isinstance(value, int):
            return value
        return int(value) if value.isdecimal() else self.fail(f"{value!r} is not 8, 4, 1 or adaptive", param, ctx)


VIEWS = Views()


class Step(click.Command):
    """A command whose user errors are one line and exit 1; whatever else escapes is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CheckFailed as e:
            raise click.ClickException(one_line(e)) from e
        except (DlinkError, OSError) as e:
            raise click.ClickException(one_line(e)) from e
        except MemoryError as e:
            raise click.ClickException(f"not enough memory: {one_line(e)}") from e
        except ModuleNotFoundError as e:
            from dlink.doctor.extras import how_to_get

            package = (e.name or "").partition(".")[0]
            if not (line := how_to_get(package, self.name or "")):
                raise
            raise click.ClickException(f"this needs {package}: {line}") from e


def one_line(e: BaseException) -> str:
    if isinstance(e, OSError) and e.filename is not None and e.strerror:
        return f"{e.filename}: {e.strerror}"
    return " ".join(str(e).split())


class Show(Protocol):
    def __call__(self, done: int, total: int, words: str = "", at_once: bool = False) -> None: ...


def progress(title: str) -> Show:
    """A line on stderr that says how far a long job is: call it with (done, all, more words).

    `all` is 0 where nobody knows it. The line keeps still for the first two seconds, is redrawn at most ten times a
    second on a terminal, and elsewhere printed anew every half minute; `at_once` is for what will be silent for long.
    """
    begun = shown = counted = time.monotonic()
    terminal = sys.stderr.isatty()

    def show(done: int, total: int, words: str = "", at_once: bool = False) -> None:
        nonlocal shown, counted
        now = time.monotonic()
        last = 0 < total <= done and shown > begun
        if not (last or at_once) and (now - begun < QUIET_FOR or now - shown < (0.1 if terminal else 30)):
            return
        shown = now
        if not done:
            counted = now  # what is counted begins now
        left = (now - counted) / max(done, 1) * (total - done)
        line = f"{title} {words} {now - begun:.0f} s"
        if total:
            line = f"{title} {done}/{total} {words} {now - begun:.0f} s, {left:.0f} s left"
        if terminal:
            click.echo(f"\r\033[K{line}" + ("\n" if last else ""), nl=False, err=True)
        else:
            click.echo(line, err=True)

    return show
