"""Video that breaks: every delivered frame is the one that it says, and a link that is back gives frames again."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dlink.live.video import connection as connection_module
from dlink.live.video.address import address_of
from dlink.live.video.recording import frames_of
from dlink.live.video.source import Source
from dlink.runtime import BadInput
from tests.support.video import HEIGHT, WIDTH, RtspServer, free_port, number_in, painted, send, write_video

ROOT = Path(__file__).parents[3]


class Reader:
    """A thread that takes what a source gives: (connection, index, number painted in, video, age)."""

    def __init__(self, address, **options):
        self.got, self.data, self.error = [], [], None
        self.source = Source(address, on_data=lambda *packet: self.data.append(packet), **options)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            for taken in self.source:
                age = time.monotonic() - taken.captured
                self.got.append((taken.connection, taken.index, number_in(taken.pixels()), taken.video, age))
        except Exception as e:
            self.error = e

    def wait(self, true):
        end = time.monotonic() + 60
        while not true(self.got):
            assert time.monotonic() < end and not self.error, (self.error, self.source.seen, self.got[-3:])
            time.sleep(0.005)

    def close(self):
        self.source.close()
        self.thread.join(30)
        assert not self.thread.is_alive() and not self.error


def without_stamps(path):
    """An MPEG-TS whose KLV packets have lost their time stamps, as asynchronous telemetry has none."""
    data, private = bytearray(path.read_bytes()), (0xBD, 0xFC)  # ids of such streams
    for at in range(0, len(data), 188):
        head = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        if data[at + 1] & 0x40 and data[head : head + 3] == b"\0\0\1" and data[head + 3] in private:
            data[head + 7] &= 0x3F
            data[head + 9 : head + 9 + data[head + 8]] = b"\xff" * data[head + 8]
    out = path.with_name("without.ts")
    out.write_bytes(data)
    return out


@pytest.fixture
def read():
    readers = []

    def start(address, **options):
        readers.append(Reader(address, **options))
        return readers[-1]

    yield start
    for reader in readers:
        reader.close()


def sender(port, frames=3000, first=0):
    command = [sys.executable, "-m", "tests.support.video", "udp", str(port), str(frames), str(first)]
    return subprocess.Popen(command, cwd=ROOT)


def fds():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mkv"])
@pytest.mark.parametrize("bframes", [0, 2])
def test_each_frame_of_a_file_is_the_one_that_it_says(tmp_path, name, bframes):
    path = write_video(tmp_path / name, 50, bframes=bframes)
    with Source(address_of(str(path))) as source:
        taken = list(source)
    assert [(t.index, t.connection) for t in taken] == [(i, 1) for i in range(50)]
    assert [number_in(t.pixels()) for t in taken] == list(range(50))
    assert np.diff([t.pts for t in taken]) == pytest.approx(1 / 30, abs=2e-3)
    assert source.state == "ended" and source.seen.frames == 50


def test_pixels_are_red_green_blue(tmp_path):
    path = write_video(tmp_path / "a.ts", 3)
    first = next(iter(Source(address_of(str(path)))))
    pixels = first.pixels()
    assert pixels.shape == (HEIGHT, WIDTH, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - painted(0)).mean() < 4
    assert pixels[120, 20, 0] > 150 and pixels[120, 20, 2] < 60  # the bar is red


def test_a_file_can_be_given_at_its_own_rate(tmp_path):
    path = write_video(tmp_path / "a.ts", 20)
    begun = time.monotonic()
    with Source(address_of(str(path)), pace=True) as source:
        assert len(list(source)) == 20
    assert time.monotonic() - begun > 19 / 30 - 0.1


def test_frames_over_udp_are_dated_by_their_time_stamps_and_none_of_the_first_burst(read):
    port = free_port()
    reader = read(address_of(f"udp:{port}"))
    process = sender(port)
    try:
        reader.wait(lambda got: len(got) > 60)
    finally:
        process.kill()
        process.wait()
    for _, index, number, _, age in reader.got:
        assert number == index and age >= 0
    assert reader.source.seen.buffered > 0  # what was read to know the codec came too late to be dated


def test_telemetry_is_handed_out_in_its_order(read):
    port = free_port()
    reader = read(address_of(f"udp:{port}"))
    process = sender(port)
    try:
        reader.wait(lambda _: len(reader.data) > 40)
    finally:
        process.kill()
        process.wait()
    numbers = [int(bytes_.removeprefix(b"klv ")) for bytes_, *_ in reader.data]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert all(stamp == pytest.approx(n / 30, abs=1e-3) for n, (_, stamp, *_) in zip(numbers, reader.data, strict=True))


def test_telemetry_without_time_stamps_is_handed_out_and_recorded(tmp_path):
    path = without_stamps(write_video(tmp_path / "a.ts", 30, klv=True))

    def heard(path, **options):
        data = []
        with Source(address_of(str(path)), on_data=lambda *packet: data.append(packet), **options) as source:
            assert len(list(source)) == 30 and not source.failure
        return data

    first = heard(path, record=tmp_path)
    assert [data for data, *_ in first] == [b"klv %d" % i for i in range(30)]
    assert all(stamp is None and captured > 0 for _, stamp, captured, _ in first)
    recorded = [data for data, *_ in heard(tmp_path / "video-0001.ts")]  # from the first key frame on
    assert len(recorded) >= 25 and recorded == [data for data, *_ in first][-len(recorded) :]


def test_a_sender_that_is_killed_and_comes_back_gives_frames_again(read, tmp_path):
    port = free_port()
    reader = read(address_of(f"udp:{port}"), record=tmp_path)
    for first in (0, 1000):
        process = sender(port, first=first)
        try:
            reader.wait(lambda got, first=first: sum(number >= first for _, _, number, _, _ in got) > 30)
        finally:
            process.kill()
            process.wait()
        if not first:
            reader.wait(lambda _: reader.source.state == "lost")  # silence is noticed
            assert reader.source.seen.lost == "nothing came for 2 s"
    reader.close()
    places = [(connection, index) for connection, index, *_ in reader.got]
    assert len(set(places)) == len(places) and reader.got[-1][0] >= 2
    for video in {video for _, _, _, video, _ in reader.got}:
        recorded = [number_in(image) for image in frames_of(tmp_path / video)]
        assert all(recorded[index] == number for _, index, number, name, _ in reader.got if name == video)


def test_an_rtsp_server_that_is_killed_and_comes_back_gives_frames_again(read):
    server = RtspServer()
    reader = read(address_of(server.url))
    reader.wait(lambda got: len(got) > 30)
    server.stop()
    reader.wait(lambda _: reader.source.state == "lost")
    before = len(reader.got)
    again = RtspServer(server.port)
    again.number = 2000
    reader.wait(lambda got: len(got) > before + 30)
    again.stop()
    first = [number - index for connection, index, number, *_ in reader.got if connection == 1]
    assert len(set(first)) == 1
    assert all(number >= 2000 for connection, _, number, _, _ in reader.got if connection > 1)
    assert "secret" not in reader.source.address.shown


def test_an_rtsp_server_that_falls_silent_is_noticed(read, monkeypatch):
    monkeypatch.setattr(connection_module, "SILENT", 0.5)
    server = RtspServer()
    reader = read(address_of(server.url))
    reader.wait(lambda got: len(got) > 10)
    server.stopped.set()  # the connection stays open
    reader.wait(lambda _: reader.source.state == "lost")
    server.stop()


def test_joining_between_key_frames_gives_nothing_before_the_next_one(tmp_path):
    path = write_video(tmp_path / "a.ts", 60, gop=20)
    packets = [path.read_bytes()[i : i + 188] for i in range(0, path.stat().st_size, 188)]
    cut = tmp_path / "cut.ts"
    cut.write_bytes(b"".join(packets[:2] + packets[12:]))  # the tables, and not the first key frame
    with Source(address_of(str(cut))) as source:
        numbers = [number_in(taken.pixels()) for taken in source]
    assert numbers and numbers[0] == 20 and numbers == list(range(20, 60))
    assert source.seen.before_key > 0


def test_damaged_frames_are_counted_and_not_delivered(tmp_path):
    path = write_video(tmp_path / "a.ts", 60, gop=60)
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 188 * 8, 188):
        data[at + 60 : at + 160] = bytes(100)
    path.write_bytes(data)
    with Source(address_of(str(path))) as source:
        numbers = [number_in(taken.pixels()) for taken in source]
    assert source.seen.corrupt + source.seen.refused > 0
    assert len(numbers) == source.seen.frames < 60 and numbers == sorted(set(numbers))


def test_time_stamps_that_jump_back_begin_a_new_connection_and_file(tmp_path):
    path = write_video(tmp_path / "a.ts", 30, gop=10)
    twice = tmp_path / "twice.ts"
    twice.write_bytes(path.read_bytes() * 2)
    with Source(address_of(str(twice)), record=tmp_path) as source:
        taken = [(t.connection, t.index, t.video, number_in(t.pixels())) for t in source]
    assert len({(connection, index) for connection, index, *_ in taken}) == len(taken)
    for video in {"video-0001.ts", "video-0002.ts"}:
        recorded = [number_in(image) for image in frames_of(tmp_path / video)]
        assert [(recorded[index], number) for _, index, name, number in taken if name == video]
        assert all(recorded[index] == number for _, index, name, number in taken if name == video)


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.mp4", "libx264"), ("a.mkv", "mjpeg")])
def test_a_recording_has_the_same_pixels(tmp_path, name, codec):
    path = write_video(tmp_path / name, 40, bframes=2 if codec == "libx264" else 0, codec=codec)
    with Source(address_of(str(path)), record=tmp_path) as source:
        delivered = [(taken.video, taken.index, taken.pixels()) for taken in source]
    assert not source.failure
    recorded = list(frames_of(tmp_path / delivered[0][0]))
    assert len(recorded) == len(delivered) == 40
    for _, index, pixels in delivered:
        np.testing.assert_array_equal(recorded[index], pixels)


def test_a_recording_can_be_read_after_the_process_was_killed(tmp_path):
    port = free_port()
    code = f"""
from pathlib import Path
from dlink.live.video.address import address_of
from dlink.live.video.source import Source
for taken in Source(address_of("udp:{port}"), record=Path({str(tmp_path)!r})):
    print(taken.index, flush=True)
"""
    reader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    process = sender(port)
    try:
        last = [int(reader.stdout.readline()) for _ in range(60)][-1]
    finally:
        reader.kill()
        process.kill()
        reader.communicate()
        process.wait()
    recorded = [number_in(image) for image in frames_of(tmp_path / "video-0001.ts")]
    assert recorded[: last - 2] == list(range(recorded[0], recorded[0] + last - 2))


def test_a_recording_that_fails_is_said_and_the_video_goes_on(tmp_path):
    path = write_video(tmp_path / "a.ts", 20)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "video-0001.ts").symlink_to("/dev/full")
    with Source(address_of(str(path)), record=tmp_path / "full") as source:
        assert len(list(source)) == 20
    assert source.failure.startswith("the ") and "No space left" in source.failure


@pytest.mark.parametrize("format", ["rgb24", "bgr24"])
def test_raw_frames_come_through_a_pipe(format):
    frames = [painted(i) for i in range(20)]
    data = b"".join((f if format == "rgb24" else f[..., ::-1]).tobytes() for f in frames) + b"cut off"
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from dlink.live.video.address import address_of
from dlink.live.video.source import Source
from tests.support.video import number_in
source = Source(address_of("-", raw="{WIDTH}x{HEIGHT}:{format}@10"))
print([(t.index, t.pts, number_in(t.pixels()), t.pixels()[120, 20].tolist() if t.index == 0 else 0) for t in source])
print(source.seen.partial)
"""
    done = subprocess.run([sys.executable, "-c", code], input=data, stdout=subprocess.PIPE, check=True)
    got, partial = done.stdout.decode().splitlines()
    assert eval(got) == [(i, i / 10, i, [200, 40, 10] if i == 0 else 0) for i in range(20)]
    assert partial == "7"


def test_a_container_comes_through_a_pipe(tmp_path):
    path = write_video(tmp_path / "a.ts", 20)
    code = """
from dlink.live.video.address import address_of
from dlink.live.video.source import Source
print([t.index for t in Source(address_of("-"))])
"""
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, stdout=subprocess.PIPE, check=True)
    assert eval(done.stdout) == list(range(20))


def test_no_file_descriptor_is_left_by_connections_that_fail(monkeypatch):
    monkeypatch.setattr(connection_module, "OPENS", 0.05)
    port = free_port()
    source = Source(address_of(f"rtsp://127.0.0.1:{port}/nobody"))
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    while not source.seen.lost:
        time.sleep(0.01)
    before = fds()
    time.sleep(1)
    source.close()
    thread.join(30)
    assert not thread.is_alive() and fds() <= before
    assert source.state == "ended" and "refused" in source.seen.lost


def test_a_video_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(BadInput, match=r"a\.mp4: cannot be read as video"):
        list(Source(address_of(str(tmp_path / "a.mp4"))))


def test_a_camera_is_named_with_the_pipe_that_reads_it():
    with pytest.raises(BadInput, match="ffmpeg -f v4l2 -i /dev/video7"):
        list(Source(address_of("/dev/video7")))


@pytest.mark.parametrize(
    ("text", "raw", "words"),
    [
        ("missing.mp4", None, "no such file; a source is a video file, udp:PORT, rtsp://"),
        ("udp:", None, "a UDP source is udp:PORT"),
        ("udp:99999", None, "a UDP source is udp:PORT"),
        ("-", "640", "--raw must be such as 1280x720"),
        ("-", "0x10", "--raw must be such as 1280x720"),
        ("-", "640x480:yuv420p", "--raw must be such as 1280x720"),
        ("a.mp4", "640x480", "write - as the source"),
    ],
)
def test_an_address_that_is_none_is_refused(text, raw, words):
    with pytest.raises(BadInput, match=words):
        address_of(text, raw)


@pytest.mark.parametrize(
    ("text", "kind", "url"),
    [
        ("udp:5000", "udp", "udp://0.0.0.0:5000"),
        ("udp://@:5000", "udp", "udp://0.0.0.0:5000"),
        ("udp://239.1.2.3:5000", "udp", "udp://239.1.2.3:5000"),
        ("rtsp://h/s", "rtsp", "rtsp://h/s"),
        ("srt://h:9000", "net", "srt://h:9000"),
        ("-", "pipe", "pipe:0"),
        ("/dev/video0", "device", "/dev/video0"),
    ],
)
def test_an_address_is_what_ffmpeg_opens(text, kind, url):
    address = address_of(text)
    assert address.kind == kind and address.url.startswith(url)


def test_sending_and_reading_agree_on_the_numbers():
    assert [number_in(painted(n)) for n in (0, 1, 77, 65535)] == [0, 1, 77, 65535]
    assert callable(send)
