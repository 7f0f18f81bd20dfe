"""`dlink-doctor`: what this machine can run."""

import json
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.step import Step

if TYPE_CHECKING:
    from dlink.doctor.report import Report


@click.command(cls=Step, short_help="Say what this machine can do and what it lacks.")
@options.as_json
def doctor(as_json: bool) -> None:
    """Say what is installed, what is missing and how to get it, and what can be done here. Always exits with 0."""
    from dlink.doctor.machine import look_around
    from dlink.doctor.report import examine

    report = examine(look_around())
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else report_in_words(report))


def report_in_words(report: "Report") -> str:
    machine = report.machine
    where = [machine.system, machine.cpu, machine.jetson and f"Jetson Linux {machine.jetson}"]
    lines = [", ".join(filter(None, where)), ""]
    for row in report.rows:
        found = " ".join(filter(None, [row.version, row.state if row.state != "found" or not row.version else ""]))
        lines.append(f"{row.name:<14}{found:<22}  {row.use}")
        lines += [f"{'':<14}{word}: {text}" for word, text in (("why", row.fault), ("do", row.mend)) if text]
    lines.append("")
    for ability in report.abilities:
        lines.append(f"{ability.name:<32}{'yes' if ability.can else 'no'}" + (ability.words and f": {ability.words}"))
    return "\n".join(lines)
