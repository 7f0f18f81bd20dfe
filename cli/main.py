"""`dlink`: the steps in the order of the work. Each is also a command of its own, `dlink-<step>`."""

from importlib import import_module

import click

STEPS = (
    "osm",
    "train",
    "scenes",
    "export",
    "calibrate",
    "build",
    "check",
    "sign",
    "score",
    "segment",
    "bench",
    "demo",
    "doctor",
)


class Steps(click.Group):
    """Imports a step only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(STEPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in STEPS:
            return None
        command: click.Command = getattr(import_module(f"dlink.cli.{cmd_name}"), cmd_name)
        return command


@click.command(cls=Steps)
@click.version_option(package_name="dlink")
def dlink() -> None:
    """Put a trained road-segmentation network on a drone, a ground station or a laptop."""
