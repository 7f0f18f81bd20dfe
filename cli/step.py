"""What all commands share: errors in one line, moved options, progress on stderr."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import click

from dlink.imagery.notes import LOG, SAID
from dlink.runtime.errors import DlinkError

QUIET_FOR = 2.0  # seconds before a progress line appears


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A task that has moved from one step to another. Its old spelling still works, and is not in --help.

    The old spelling is an option, or a step's values for which `when` is true.
    """

    to: str  # the step that has the task now
    option: str = ""
    now: str = ""  # the option's name there; empty: the option is a flag, and is left out
    when: Callable[[Mapping[str, Any]], bool] | None = None
    words: str = ""  # what `when` recognises, for the message
    unknown: Mapping[str, str] = field(default_factory=dict)  # a value of an option that the new step does not know

    def arguments(self, args: Sequence[str]) -> list[str] | None:
        """The arguments for the new step; None if the option is not among them."""
        options = args[: args.index("--")] if "--" in args else args
        for at, arg in enumerate(options):
            name, equals, value = arg.partition("=")
            if self.option and name == self.option and (self.now or not equals):
                return [*args[:at], *([self.now + equals + value] if self.now else []), *args[at + 1 :]]
        return None


class Misuse(click.UsageError):
    """A usage error in one line. click prints three lines, and the first two do not say what is wrong."""

    def show(self, file: Any = None) -> None:
        click.ClickException.show(self, file)


def misuse(e: click.UsageError) -> click.UsageError:
    """The error in one line: what is wrong, and which --help to read."""
    if type(e).show is not click.UsageError.show or e.ctx is None:  # such as click's error that prints the help
        return e
    param, ctx = getattr(e, "param", None), e.ctx
    where = f"{ctx.command_path} --help says what it takes"
    if isinstance(e, click.MissingParameter) and param:
        usage = " ".join(ctx.get_usage().split()[1:])
        words = f" ({param.help.rstrip('.')})" if isinstance(param, click.Option) and param.help else ""
        return Misuse(f"{shown(param)} is missing{words}; usage: {usage}", ctx)
    if isinstance(e, click.BadParameter) and param:
        return Misuse(f"{shown(param)}: {' '.join(e.message.split()).rstrip('.')}; {where}", ctx)
    text = " ".join(e.format_message().split()).rstrip(".").replace(". Did", "; did")
    return Misuse(f"{text} {where}" if text.endswith("?") else f"{text}; {where}", ctx)


def shown(param: click.Parameter) -> str:
    """A parameter's name as --help shows it."""
    return max(param.opts, key=len) if isinstance(param, click.Option) else param.human_readable_name


class Step(click.Command):
    """A command whose user errors are one line and exit 1. Other exceptions are bugs and keep their traceback."""

    def __init__(self, *args: Any, moved: Sequence[Moved] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.moved = moved

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of this step, or of the step to which the task has moved."""
        given = list(args)
        try:
            for moved in self.moved:
                if (rest := moved.arguments(given)) is not None:
                    return self.handed_over(moved, info_name, rest, parent, **extra)
            ctx = super().make_context(info_name, args, parent, **extra)
        except click.UsageError as e:
            raise misuse(e) from e
        for moved in self.moved:
            if moved.when and not ctx.resilient_parsing and moved.when(ctx.params):
                return self.handed_over(moved, info_name, given, parent, **extra)
        return ctx

    def handed_over(
        self, moved: Moved, info_name: str | None, args: list[str], parent: click.Context | None, **extra: Any
    ) -> click.Context:
        own = str(self.name)
        old, new = f"dlink-{own} {moved.option or moved.words}", f"dlink-{moved.to}"
        renamed = f", and {moved.option} is {moved.now} there" if moved.now else ""
        click.echo(f"deprecated: {old} has become {new}{renamed}; {new} runs now", err=True)
        step = step_of(moved.to)
        args, ignored = self.split(args, moved, step)
        if ignored:
            click.echo(f"note: {', '.join(ignored)}: has no meaning for {new}, as before, and is ignored", err=True)
        called = moved.to if parent else (info_name or own).removesuffix(own) + moved.to
        return step.make_context(called, args, parent, **extra)

    def split(self, args: Sequence[str], moved: Moved, step: click.Command) -> tuple[list[str], list[str]]:
        """The arguments that the new step takes, and the options of this one that it used to ignore there."""
        known = {name for param in step.params for name in (*param.opts, *param.secondary_opts)}
        own = {name: p for p in self.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)}
        kept, ignored, rest = [], [], list(args)
        while rest and rest[0] != "--":
            name, equals, value = rest[0].partition("=")
            param = own.get(name)
            takes = 1 + (param is not None and not equals and not (param.is_flag or param.count))
            value = value if equals else "".join(rest[1:takes])
            if param and (name not in known or (name in moved.unknown and moved.unknown[name] == value)):
                ignored.append(name)
            else:
                kept += rest[:takes]
            rest = rest[takes:]
        return kept + rest, ignored

    def invoke(self, ctx: click.Context) -> Any:
        with notes_shown():
            return self.guarded(ctx)

    def guarded(self, ctx: click.Context) -> Any:
        """Run the step; its errors become one line."""
        if ctx.command is not self:  # the task has moved to another step
            return ctx.command.invoke(ctx)
        try:
            return super().invoke(ctx)
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


@contextmanager
def notes_shown() -> Iterator[None]:
    """Within the block, what a reader of pictures assumed is a note on stderr (imagery/notes.py)."""
    handler = logging.Handler()
    handler.emit = lambda record: click.echo(f"note: {record.getMessage()}", err=True)  # type: ignore[method-assign]
    SAID.clear()  # of an earlier command in this process
    LOG.addHandler(handler)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.propagate = True


def step_of(name: str) -> click.Command:
    """A step, imported by this call."""
    command: click.Command = getattr(import_module(f"dlink.cli.{name}"), name)
    return command


def one_line(e: BaseException) -> str:
    if isinstance(e, OSError) and e.filename is not None and e.strerror:
        return f"{e.filename}: {e.strerror}"
    return " ".join(str(e).split())


class Show(Protocol):
    def __call__(self, done: int, total: int, words: str = "", at_once: bool = False) -> None: ...


def progress(title: str) -> Show:
    """What shows a long job's progress in a line on stderr: call it with (done, total, words).

    `total` is 0 if it is unknown. The line appears after two seconds. A terminal redraws it at most ten times a second;
    elsewhere a new line is printed every half minute. `at_once` shows it immediately, before a long silence.
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
            counted = now  # the time left is estimated from here on
        left = (now - counted) / max(done, 1) * (total - done)
        line = f"{title} {words} {now - begun:.0f} s"
        if total:
            line = f"{title} {done}/{total} {words} {now - begun:.0f} s, {left:.0f} s left"
        if terminal:
            click.echo(f"\r\033[K{line}" + ("\n" if last else ""), nl=False, err=True)
        else:
            click.echo(line, err=True)

    return show
