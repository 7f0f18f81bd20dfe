"""`dlink-replay`: the folder of a session -> what happened, or its frames computed again."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.step import Step, progress
from dlink.runtime.errors import CheckFailed

if TYPE_CHECKING:
    from dlink.live.session.reading import Recorded


@click.command(cls=Step, short_help="Look at a live session, or compute it again.")
@click.argument("session", type=options.IN_FOLDER)
@click.option("--again", is_flag=True, help="Compute the recorded frames again and compare the masks.")
@click.option("--model", type=options.IN_FILE, help="The model file.  [default: where it was then]")
@options.threads
def replay(session: Path, again: bool, model: Path | None, threads: int | None) -> None:
    """Say what became of the frames of SESSION, the folder that dlink-live wrote with -o.

    With --again, the recorded frames that got roads are computed again, with as many views as then, and each mask is
    compared with that of the session. Any difference makes the command fail.
    """
    from dlink.live.session.reading import read_session

    recorded = read_session(session)
    click.echo(said(recorded))
    if not again:
        return
    from dlink.live.session.again import again as compute_again

    done = compute_again(recorded, model, threads, progress("replay"))
    click.echo(done.words)
    if done.differ:
        raise CheckFailed(f"{done.differ} of {done.compared} masks differ; the first is frame {done.first}'s")


def said(recorded: "Recorded") -> str:
    """A session in some lines."""
    head, lines = recorded.head, recorded.lines
    counts = Counter(line.what for line in lines)
    ages = sorted(line.age for line in lines if line.age is not None)
    out = [f"{recorded.folder}: {head.source}, {head.model.name}, {head.engine}"]
    if recorded.cut_off:
        out.append("it was cut off, or runs still; what is here was written before")
    out.append(f"{len(lines)} frames: " + (", ".join(f"{n} {what}" for what, n in counts.most_common()) or "none"))
    if ages:
        median, rare = ages[len(ages) // 2], ages[min(len(ages) - 1, int(0.99 * len(ages)))]
        views = Counter(round(line.views, 1) for line in lines if line.views is not None)
        said = ", ".join(f"{n} with {number:g}" for number, n in sorted(views.items(), reverse=True))
        out.append(f"age when done: median {median:.3f} s, 99 % within {rare:.3f} s; views: {said}")
    return "\n".join(out)
