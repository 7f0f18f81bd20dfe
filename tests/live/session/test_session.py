"""The folder of a session: every frame has a line, and what was written before a crash can be read."""

import json
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dlink.imagery.images import read_grey
from dlink.live import Frame, Live, Outcome, Pose, Roads
from dlink.live.engine import About
from dlink.live.session import session as session_module
from dlink.live.session.head import head_of
from dlink.live.session.line import Line, line_of
from dlink.live.session.reading import read_session
from dlink.live.session.session import Session
from dlink.runtime import BadInput, BadModel, HostBackend, Segmenter, Spec

ABOUT = About(Spec(tile=32, views=(0,)), 8, 0.5, "NumPy", 0.01)


def head():
    return head_of(ABOUT, Path(__file__), "udp:5000", {"deadline": "200"})


def outcome(number, what="roads", **values):
    frame = Frame(id=number, captured=10.0 + number, pixels=np.zeros((4, 6, 3), np.uint8), **values)
    if what not in ("roads", "late"):
        return Outcome(frame, what, error="broken" if what == "failed" else "")
    levels = np.full((4, 6), 40 * number % 256, np.uint8)
    levels[0, 0] = 255
    roads = Roads(
        frame=frame, image=frame.pixels, levels=levels, threshold=0.5, rung=4, views=4, scale=0.5, begun=10.5 + number,
        done=11.0 + number, late=what == "late",
    )  # fmt: skip
    return Outcome(frame, what, roads)


def test_what_was_written_is_read(tmp_path):
    pose = Pose(latitude=47.1, longitude=8.5, height_m=120.0, yaw=10.0)
    kinds = ["roads", "replaced", "failed", "late", "expired", "left"]
    outcomes = [outcome(i, what, utc=1e9 + i, pose=pose, tag=("video-0001.ts", i)) for i, what in enumerate(kinds)]
    with Session(tmp_path / "s", head()) as session:
        for each in outcomes:
            session.put(each)
    found = read_session(tmp_path / "s")
    assert not found.cut_off and found.head == replace(session.head, ended=found.head.ended)
    assert found.head.spec == ABOUT.spec and found.head.options == {"deadline": "200"}
    assert [line.what for line in found.lines] == kinds
    assert found.lines[0] == Line(
        id=0, what="roads", captured=10.0, utc=1e9, video="video-0001.ts", index=0, pose=pose, begun=10.5, done=11.0,
        age=1.0, rung="4", views=4.0, scale=0.5, mask="masks/00000000.png",
    )  # fmt: skip
    assert found.lines[2].error == "broken" and found.lines[1].mask is None
    for number in (0, 3):
        np.testing.assert_array_equal(read_grey(tmp_path / "s" / found.lines[number].mask), outcomes[number].roads.mask)


def test_every_offered_frame_of_a_live_has_one_line(tmp_path):
    net = HostBackend(lambda x: np.full((1, 32, 32), 0.9, np.float32), ABOUT.spec)
    with (
        Segmenter(net) as model,
        Session(tmp_path, head()) as session,
        Live(model, deadline=None, outcomes=session.put) as live,
    ):
        for i in range(60):
            live.offer(np.zeros((32, 32, 3), np.uint8) if i % 7 else lambda: 1 / 0)
        live.end()
        list(live)
    lines = read_session(tmp_path).lines
    assert sorted(line.id for line in lines) == list(range(60))
    assert sum(line.what == "replaced" for line in lines) == live.counts.replaced
    assert {line.mask is not None for line in lines if line.what == "roads"} == {True}


def test_a_session_that_is_killed_can_be_read(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from itertools import count
from tests.live.session.test_session import Session, head, outcome
session = Session(Path({str(tmp_path / "s")!r}), head())
for i in count():
    session.put(outcome(i))
    if i == 40: print("ready", flush=True)
    while session.queue.qsize() > 8: pass
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"ready\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    found = read_session(tmp_path / "s")
    assert found.cut_off and len(found.lines) > 20
    assert [line.id for line in found.lines] == list(range(len(found.lines)))
    for line in found.lines:
        assert read_grey(tmp_path / "s" / line.mask).shape == (4, 6)


def test_a_last_line_that_was_cut_off_is_left_out_and_other_damage_is_named(tmp_path):
    with Session(tmp_path, head()) as session:
        [session.put(outcome(i)) for i in range(3)]
    path = tmp_path / "roads.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert [line.id for line in read_session(tmp_path).lines] == [0, 1]
    for damaged in (b"{}\n", b"[]\n", b"no\n", b'{"id": 1, "what": "roads", "captured": "x"}\n'):
        path.write_bytes(whole + damaged)
        with pytest.raises(BadModel, match=r"roads\.jsonl, line 4"):
            read_session(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "dlink": "1"}'])
def test_a_damaged_head_is_named(tmp_path, text):
    with Session(tmp_path, head()) as session:
        session.put(outcome(0))
    (tmp_path / "session.json").write_text(text)
    with pytest.raises(BadModel, match=r"session\.json"):
        read_session(tmp_path)


def test_a_folder_without_a_session_and_one_with_a_session_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no session"):
        read_session(tmp_path)
    with Session(tmp_path, head()) as session:
        session.put(outcome(0))
    with pytest.raises(BadInput, match="has a session already"):
        Session(tmp_path, head())


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(BadInput, match="is no empty folder"):
        Session(tmp_path, head())
    with pytest.raises(BadInput, match="is no empty folder"):
        Session(tmp_path / "letter.txt", head())


@pytest.mark.parametrize("there", [False, True])
def test_a_session_of_no_frame_leaves_nothing(tmp_path, there):
    folder = tmp_path / "s"
    if there:
        folder.mkdir()
    Session(folder, head()).close()
    assert folder.exists() == there and not (there and list(folder.iterdir()))


def test_a_slow_disk_costs_masks_that_the_lines_name_and_holds_nothing_up(tmp_path, monkeypatch):
    gate = threading.Event()
    write = session_module.write_image

    def slow(path, pixels):
        assert gate.wait(30)
        write(path, pixels)

    monkeypatch.setattr(session_module, "write_image", slow)
    with Session(tmp_path, head()) as session:
        for i in range(session_module.MOST + 30):
            session.put(outcome(i % 6))  # returns although the disk does not
        gate.set()
    lines = read_session(tmp_path).lines
    missing = [line for line in lines if line.mask is None]
    assert len(lines) == session_module.MOST + 30
    assert len(missing) == session.missing > 0
    assert all("slower than the network" in line.error for line in missing)


def test_a_disk_that_fails_is_an_error_and_what_was_written_stays(tmp_path, monkeypatch):
    write = session_module.write_image

    def full(path, pixels):
        if path.name == "00000002.png":
            raise OSError(28, "No space left on device", str(path))
        write(path, pixels)

    monkeypatch.setattr(session_module, "write_image", full)
    session = Session(tmp_path, head())
    [session.put(outcome(i)) for i in range(5)]
    with pytest.raises(OSError, match="No space left"):
        session.close()
    found = read_session(tmp_path)
    assert found.cut_off and [line.id for line in found.lines] == [0, 1]


def test_a_line_leaves_out_what_is_not_known():
    line = line_of(outcome(3, "replaced"), None)
    assert json.loads(line.to_json()) == {"id": 3, "what": "replaced", "captured": 13.0}
