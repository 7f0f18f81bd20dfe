"""`dlink`: the steps in the order of the work. Each is also a command of its own, `dlink-<step>`."""

from typing import Any

import click

from dlink.cli.step import misuse, step_of

FLOW = {
    "First steps": ("doctor", "demo"),
    "Tiles and checkpoints": ("osm", "spacenet", "scenes", "train", "distil", "slim"),
    "Files": ("export", "calibrate", "finetune", "build", "inspect"),
    "Checks": ("check", "layers", "tune", "scout", "score", "sign"),
    "Running": ("segment", "map", "vectorize", "live", "replay", "bench"),
}
STEPS = tuple(step for steps in FLOW.values() for step in steps)


class Steps(click.Group):
    """Imports a step only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(STEPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return step_of(cmd_name) if cmd_name in STEPS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, STEPS))
        for title, steps in FLOW.items():
            room = formatter.width - 6 - widest
            with formatter.section(title):
                formatter.write_dl([(step.ljust(widest), step_of(step).get_short_help_str(room)) for step in steps])

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as e:
            raise misuse(e) from e

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as e:
            raise misuse(e) from e


@click.command(cls=Steps)
@click.version_option(package_name="dlink")
def dlink() -> None:
    """Put a trained road-segmentation network on a drone, a ground station or a laptop."""
