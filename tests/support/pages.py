"""README and the pages of docs/ as tests see them: their blocks of code, and the commands that they name."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from dlink.cli.main import STEPS, dlink
from tests.support.environments import ROOT

BESIDE = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md", "training/README.md")
PAGES = [*(ROOT / name for name in BESIDE), *sorted(ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(r"^(```+|:::+)(\{?[\w-]*\}?)")
NOT_RUN = re.compile(r"^<!-- not run: (needs .+) -->$")
SPAN = re.compile(r"`([^`\n]+)`")
MODULE = re.compile(r"-m dlink\.cli\.(\w+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, or one that is indented by four spaces (no language)."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str = ""  # what it needs, where a comment in front of it says so

    @property
    def place(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> Iterator[Block]:
    """The blocks of a page in order."""
    lines = page.read_text().splitlines()
    at = 0
    while at < len(lines):
        fence = FENCE.match(lines[at])
        end = at + 1
        if fence and fence[1][0] == "`":
            while lines[end] != fence[1]:
                end += 1
            said = NOT_RUN.match(lines[at - 1]) if at else None
            yield Block(page, at + 1, fence[2], "\n".join(lines[at + 1 : end]) + "\n", said[1] if said else "")
            end += 1
        elif lines[at].startswith("    "):
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
            yield Block(page, at + 1, "", "\n".join(line[4:] for line in lines[at:end]) + "\n")
        at = end


def prose_of(page: Path) -> str:
    """A page without its blocks, whose lines are empty."""
    lines = page.read_text().splitlines()
    for block in blocks_of(page):
        for at in range(block.line - 1, block.line + block.text.count("\n")):
            lines[at] = ""
    return "\n".join(lines)


def command_lines(block: Block) -> Iterator[list[str]]:
    """The commands of ours in a block, as a shell would split them; the step first."""
    if block.language in ("sh", ""):
        for line in block.text.splitlines():
            for part in line.split("&&"):
                part = MODULE.sub(lambda found: f"; dlink-{found[1]}", part).rpartition(";")[2].strip()
                if re.match(r"dlink[- ]\w", part):
                    yield ours(shlex.split(part, comments=True))


def named_commands(page: Path) -> Iterator[list[str]]:
    """The same of what a page's sentences name: `dlink-check --report`."""
    for span in SPAN.findall(prose_of(page)):
        if re.match(r"dlink[- ][a-z]", span):
            yield ours(span.split())


def ours(words: list[str]) -> list[str]:
    """The step and its arguments."""
    first, *rest = words
    return rest if first == "dlink" else [first.removeprefix("dlink-"), *rest]


def command_of(step: str) -> click.Command:
    found = dlink.get_command(click.Context(dlink), step) if step in STEPS else None
    assert found, f"there is no dlink-{step}"
    return found


def options_of(command: click.Command) -> set[str]:
    """Every spelling of its options but the old ones, and those that click adds."""
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    return {name for param in shown for name in (*param.opts, *param.secondary_opts)} | {"--help"}


def check_line(words: list[str]) -> None:
    """click takes the line: its options are there with values of their types, and what is required is given."""
    command = command_of(words[0])
    context = click.Context(command, info_name=words[0])
    given, rest, _ = command.make_parser(context).parse_args(list(words[1:]))
    if old := {word for word in words if re.match("--?[a-z]", word)} - options_of(command):
        raise click.NoSuchOption(old.pop(), ctx=context)
    assert not rest, f"dlink-{words[0]} takes no {rest}"
    for param in command.params:
        value = given.get(param.name)
        missing = not isinstance(value, (str, int, list, tuple)) or value in ((), [])  # click has a mark of its own
        assert not (param.required and missing), f"dlink-{words[0]} lacks {param.name}"
        if not missing and isinstance(value, str) and not isinstance(param.type, click.Path):
            param.type_cast_value(context, value)
