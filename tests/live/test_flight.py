"""dlink-live and dlink-replay as they are used: a flight over a generated world, its folder, its map, its page."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from dlink import nets
from dlink.cli.export import export
from dlink.cli.live import live
from dlink.cli.replay import replay
from dlink.live.session.reading import read_session
from tests.support.flight import EAST, NORTH, world, write_flight
from tests.support.video import free_port, write_video

FRAMES, RATE = 120, 10
COMMAND = [sys.executable, "-c", "from dlink.cli.live import live; live()"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "roads.onnx"
    weights = Path(nets.__file__).parent / "weights" / "dlinknet34-w025.th"
    assert run(export, weights, path, "--tile", 256).exit_code == 0
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_flight(tmp_path_factory.mktemp("video") / "flight.ts", FRAMES / RATE, RATE)


def run(command, *args):
    done = CliRunner().invoke(command, [str(arg) for arg in args])
    assert not done.exception or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture(scope="module")
def flown(model, video, tmp_path_factory):
    folder = tmp_path_factory.mktemp("session") / "s"
    done = run(live, model, video, "-o", folder, "--telemetry", "klv", "--views", 4, "--here", "--lines")
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_a_flight_leaves_its_lines_masks_video_and_map(flown):
    folder, output = flown
    assert "telemetry and frames of one time stamp of the video belong together" in output
    found = read_session(folder)
    assert not found.cut_off and [line.id for line in found.lines] == list(range(FRAMES))
    computed = [line for line in found.lines if line.what == "roads"]
    assert len(computed) == FRAMES  # the first ones too: a file is read ahead of its frames
    assert all((folder / line.mask).is_file() for line in computed)
    assert computed[50].scale == pytest.approx(0.2165 / 0.5, rel=0.01)
    assert computed[50].pose.height_m == pytest.approx(120, abs=0.5)
    assert sorted(path.name for path in folder.iterdir()) == [
        "map.tif", "masks", "roads.gpkg", "roads.jsonl", "session.json", "video-0001.ts"
    ]  # fmt: skip


def test_the_map_is_that_of_the_world_without_a_shift(flown):
    with rasterio.open(flown[0] / "map.tif") as file:
        levels, seen, place = file.read(1), file.read_masks(1) > 0, file.transform
    cell, side = world().gsd_m, len(world().mask)
    x = place.c + (np.arange(levels.shape[1]) + 0.5) * place.a - EAST
    y = place.f + (np.arange(levels.shape[0]) + 0.5) * place.e - NORTH
    rows, columns = (np.floor(v).astype(int) + 3000 for v in (side / 2 - y / cell, side / 2 + x / cell))
    wanted = (np.pad(world().mask, 3000) > 0)[np.ix_(rows, columns)] & seen
    scores = {}
    for dy in (-2, -1, 0, 1, 2):
        for dx in (-2, -1, 0, 1, 2):
            found = np.roll((levels > 127) & seen, (dy, dx), (0, 1))
            scores[dy, dx] = (found & wanted).sum() / (found | wanted).sum()
    assert scores[0, 0] >= 0.75 and max(scores.values()) < scores[0, 0] + 0.01


def test_a_replay_computes_the_same_masks(flown, model):
    done = run(replay, flown[0], "--again")
    assert done.exit_code == 0 and f"{FRAMES} masks compared, {FRAMES} equal" in done.output


def test_a_replay_notices_a_mask_that_differs_and_another_model(flown, model, tmp_path):
    folder = flown[0]
    line = read_session(folder).lines[5]
    kept = (folder / line.mask).read_bytes()
    (folder / line.mask).write_bytes((folder / read_session(folder).lines[100].mask).read_bytes())
    try:
        done = run(replay, folder, "--again")
    finally:
        (folder / line.mask).write_bytes(kept)
    assert done.exit_code == 1 and "1 of" in done.output and "frame 5's" in done.output
    other = tmp_path / "other.onnx"
    other.write_bytes(Path(model).read_bytes() + b" ")
    assert "is not the session's model" in run(replay, folder, "--again", "--model", other).output


def test_a_session_is_not_written_over_another(flown, model, video):
    done = run(live, model, video, "-o", flown[0], "--here")
    assert done.exit_code == 1 and "has a session already" in done.output


def test_without_a_ground_resolution_that_is_said_and_with_telemetry_it_is_needed(model, video, tmp_path):
    done = run(live, model, video, "--views", 1, "--here", "--seconds", 2)
    assert "as if they showed 0.5 m a pixel" in done.output
    plain = write_video(tmp_path / "a.ts", 20)
    done = run(live, model, plain, "--telemetry", "klv", "--here")
    assert done.exit_code == 1
    assert "no frame got roads: BadInput: frame 0: its ground resolution is not known" in done.output


def test_a_live_flight_shows_its_page_and_ends_in_order_at_a_signal(model, video, tmp_path):
    port, folder = free_port(), tmp_path / "s"
    process = subprocess.Popen(
        [*COMMAND, model, video, "-o", folder, "--pace", "--telemetry", "klv", "--page", str(port)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        state = until(f"http://127.0.0.1:{port}/state.json", lambda s: s["footprint"] and s["counts"]["offered"])
        assert state["pose"]["fov"] == pytest.approx(60, abs=0.01)
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    found = read_session(folder)
    assert not found.cut_off and sorted(line.id for line in found.lines) == list(range(len(found.lines)))
    assert f"{len(found.lines)} frames" in out


def until(url, true):
    end = time.monotonic() + 100
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                state = json.load(answer)
            if true(state):
                return state
        except OSError:
            pass
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_flight_that_is_killed_can_be_read_and_computed_again(model, video, tmp_path):
    folder = tmp_path / "s"
    process = subprocess.Popen(
        [*COMMAND, model, video, "-o", folder, "--pace", "--telemetry", "klv"], stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 100
        while not (folder / "roads.jsonl").exists() or (folder / "roads.jsonl").read_bytes().count(b"\n") < 20:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    found = read_session(folder)
    assert found.cut_off and len(found.lines) >= 20
    done = run(replay, folder, "--again")
    assert "it was cut off" in done.output and done.exit_code == 0, done.output


def test_a_video_that_cannot_be_read_leaves_no_session_in_the_way(model, tmp_path):
    (tmp_path / "a.ts").write_text("no video")
    done = run(live, model, tmp_path / "a.ts", "-o", tmp_path / "s", "--here")
    assert done.exit_code == 1 and "cannot be read as video" in done.output
    assert not (tmp_path / "s").exists()


def test_the_model_and_the_video_in_the_wrong_order_are_noticed(model, video):
    assert "MODEL comes first" in run(live, video, model).output


def test_a_port_that_another_program_has_is_said_at_once(model):
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", port))
        done = run(live, model, f"udp:{port}", "--here", "--gsd", 0.2)
    assert done.exit_code == 1 and "another program has this port" in done.output


def test_frames_without_a_pose_are_explained(model, video):
    done = run(live, model, video, "--telemetry", "klv", "--telemetry-offset", 500, "--here")
    assert (
        done.exit_code == 1
        and f"{FRAMES} frames without a pose; KLV: {FRAMES} positions, 0 damaged sets" in done.output
    )
    done = run(live, model, video, "--telemetry", "klv", "--elevation", 700, "--here")
    assert done.exit_code == 1 and "80 m below the ground" in done.output


def test_a_disk_that_is_full_is_said_and_the_flight_goes_on(model, video, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dlink.live.session.session.write_image", fail)
    done = run(live, model, video, "-o", tmp_path / "s", "--telemetry", "klv", "--views", 1, "--here")
    assert done.exit_code == 1 and f"{FRAMES} with roads" in done.output
    assert "the session is written no more: [Errno 28] No space left on device" in done.output
    assert (tmp_path / "s" / "map.tif").exists()


def test_an_elevation_that_telemetry_contradicts_is_doubted(model, video):
    done = run(live, model, video, "--telemetry", "klv", "--elevation", 100, "--views", 1, "--here", "--seconds", 3)
    assert "puts the camera 520 m above the ground, and the telemetry 120 m" in done.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--elevation", "500"], "need the camera's poses"),
        (["--telemetry", "klv", "--elevation", "5", "--dem", __file__], "one or the other"),
        (["--lines"], "needs -o and --telemetry"),
        (["--map-resolution", "1"], "with -o and --telemetry only"),
        (["--token", "x"], "name --page too"),
        (["--page", "here"], "write a port"),
        (["--telemetry", "gps"], "no telemetry"),
        (["--raw", "10x10"], "write - as the source"),
        (["--views", "3"], "views must be"),
        (["--page", "99999"], "write a port"),
        (["--map"], "needs -o and --telemetry"),
        (["--here", "--standby"], "leave one of them out"),
        (["--raw", "10x10@5", "--telemetry", "klv"], "raw frames have no telemetry"),
        (["--telemetry", "klv", "--mount", "-90"], "--mount is for MAVLink"),
        (["--telemetry", "klv", "--video-start", "2026-01-01T00:00:00Z"], "--video-start is for logs"),
    ],
)
def test_options_that_do_not_go_together_are_refused(model, video, options, words):
    done = run(live, model, video, "--here", *options)
    assert done.exit_code == 1 and words in done.output and len(done.output.splitlines()) <= 3
