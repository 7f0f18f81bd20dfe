"""`dlink-live`: model + live video -> roads, a session's folder, a map and a page."""

from contextlib import ExitStack
from pathlib import Path

import click

from dlink.cli import options
from dlink.cli.flights import (
    Asked,
    ComputeOptions,
    GiveOptions,
    PlaceOptions,
    VideoOptions,
    check,
    finish,
    prepared,
    stopped_by_signals,
)
from dlink.cli.options import together
from dlink.cli.step import Step


@click.command(cls=Step, short_help="Draw the roads of a live video.")
@options.model
@click.argument("source")
@click.option("-o", "--output", "out", type=options.OUT_PATH, help="A new folder for the session.")
@together(
    "video",
    "cli.flights:VideoOptions",
    click.option("--raw", metavar="WxH[:rgb24|bgr24][@FPS]", help="Frames of a pipe without a container."),
    click.option("--pace", is_flag=True, help="Play a file at its own rate, as if it were live."),
    click.option("--every", is_flag=True, help="Compute every frame; live video gets older.  [default: of files]"),
    click.option("--seconds", type=options.POSITIVE, help="End after so many seconds, and the frames that wait."),
    click.option(
        "--damaged", is_flag=True, help="Compute damaged frames too: where data was lost, to the next key frame."
    ),
)
@together(
    "compute",
    "cli.flights:ComputeOptions",
    click.option(
        "--deadline",
        "deadline_ms",
        type=options.POSITIVE,
        help="Milliseconds from a frame's capture to its roads.  [default: 200; none for --every and files not paced]",
    ),
    click.option("--late", type=click.Choice(["deliver", "drop"]), help="Late roads.  [default: deliver]"),
    options.any_views,
    options.scout,
    options.threads,
    click.option("--here", is_flag=True, help="Run the network in this process, not in one that can be replaced."),
    click.option("--standby", is_flag=True, help="Keep a second process ready to take over."),
)
@together(
    "place",
    "cli.flights:PlaceOptions",
    click.option("--gsd", "gsd_m", type=options.POSITIVE, help="Metres a pixel of all frames.  [default: telemetry's]"),
    click.option("--elevation", type=float, help="Of a level ground, m above the sea.  [default: telemetry's]"),
    click.option("--dem", type=options.IN_FILE, help="An elevation model, metres above the sea."),
    click.option("--map-resolution", "map_m", type=options.POSITIVE, help="Metres a cell.  [default: the network's]"),
    click.option("--telemetry", help="klv, mavlink:udp:14550, mavlink:flight.tlog or .bin, or DJI's flight.SRT."),
    together(
        "reading",
        "live.telemetry.telemetry:TelemetryOptions",
        click.option("--fov", type=click.FloatRange(1, 170), help="Field of view, degrees.  [default: telemetry's]"),
        click.option(
            "--mount", type=click.FloatRange(-90, 90), help="Pitch of a camera without gimbal: -90 looks down."
        ),
        click.option("--telemetry-offset", "offset", type=float, help="Seconds added to a frame's time."),
        click.option("--video-start", metavar="TIME", help="When a file begins, for logs: 2026-05-01T10:00:00Z."),
    ),
)
@together(
    "give",
    "cli.flights:GiveOptions",
    click.option("--masks/--no-masks", default=None, help="Write a mask for each frame.  [default: masks]"),
    click.option("--record/--no-record", default=None, help="Record the video as it comes.  [default: record]"),
    click.option("--map/--no-map", default=None, help="Map the ground.  [default: with -o and --telemetry]"),
    click.option("--lines", is_flag=True, help="At the end draw the map's roads as lines, roads.gpkg."),
    click.option("--page", metavar="[ADDRESS:]PORT", help="Serve a page; to this machine alone without an address."),
    click.option("--token", help="What clients of another address must know.  [default: a new one]"),
)
def live(
    model: Path,
    source: str,
    out: Path | None,
    video: VideoOptions,
    compute: ComputeOptions,
    place: PlaceOptions,
    give: GiveOptions,
) -> None:
    """Draw the roads that MODEL finds in the video SOURCE, in time.

    SOURCE is a video file, udp:PORT, rtsp://..., /dev/video0, or - for a pipe. Of live video the newest frame is the
    next one, and fewer views are taken where time is short. A link that breaks is opened again.
    """
    asked = Asked(video=video, compute=compute, place=place, give=give)
    check(asked, source, out)
    with ExitStack() as stack:
        flight = prepared(stack, model, source, out, asked)
        with stopped_by_signals(flight, video.seconds):
            flight.run()
    finish(flight, out, give)
