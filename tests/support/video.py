"""Video whose frames have their number painted in, and senders of it on loopback.

python -m tests.support.video udp PORT FRAMES    send FRAMES frames as MPEG-TS, 30 a second, with KLV packets
"""

import socket
import sys
import threading
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, BLOCK, BITS, RATE = 320, 192, 16, 16, 30
TICKS = Fraction(1, 90000)


def painted(number):
    """A frame, uint8 (H, W, 3), with its number as black and white blocks and a moving bar."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[100:140, (number * 7) % (WIDTH - 40) : (number * 7) % (WIDTH - 40) + 40] = (200, 40, 10)
    for bit in range(BITS):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return image


def number_in(image):
    """The number that is painted in a frame."""
    blocks = image[4:12, : BITS * BLOCK, 1].reshape(8, BITS, BLOCK)[:, :, 4:12].mean(axis=(0, 2))
    return sum(1 << bit for bit in range(BITS) if blocks[bit] > 127)


class Muxer:
    """Frames into a container: H.264 with B-frames as a drone sends it, and KLV where it is asked for."""

    def __init__(self, target, format="mpegts", klv=False, gop=15, bframes=0, codec="libx264", **options):
        self.file = av.open(str(target), "w", format=format, options={"flush_packets": "1", **options})
        x264 = {"g": str(gop), "bf": str(bframes), "preset": "ultrafast", "tune": "zerolatency", "crf": "20",
                "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={bframes}"}  # fmt: skip
        self.video = self.file.add_stream(codec, rate=RATE, options=x264 if codec == "libx264" else {})
        self.video.width, self.video.height = WIDTH, HEIGHT
        self.video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        self.data = self.file.add_data_stream("klv") if klv else None

    def frame(self, number, pts=None, klv=None):
        frame = av.VideoFrame.from_ndarray(painted(number), format="rgb24")
        frame.pts = number if pts is None else pts
        for packet in self.video.encode(frame):
            self.file.mux(packet)
        if klv is not None:
            packet = av.Packet(klv)
            packet.time_base, packet.stream = TICKS, self.data
            packet.pts = packet.dts = frame.pts * 90000 // RATE
            self.file.mux(packet)

    def close(self):
        for packet in self.video.encode():
            self.file.mux(packet)
        self.file.close()


def write_video(path: Path, frames: int, **options):
    """A video file of painted frames."""
    muxer = Muxer(path, {".ts": "mpegts", ".mp4": "mp4", ".mkv": "matroska"}[path.suffix], **options)
    for number in range(frames):
        muxer.frame(number, klv=b"klv %d" % number if options.get("klv") else None)
    muxer.close()
    return path


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def send(target, frames, first=0, format="mpegts", klv=False, **options):
    """Send painted frames at their rate."""
    muxer = Muxer(target, format, klv, **options)
    begun = time.monotonic()
    for i in range(frames):
        time.sleep(max(0.0, begun + i / RATE - time.monotonic()))
        muxer.frame(first + i, pts=i, klv=b"klv %d" % (first + i) if klv else None)
    muxer.close()


class RtspServer:
    """An RTSP server of one H.264 stream over its TCP connection. FFmpeg makes the RTP packets.

    Each client gets frames from the next number on. `stop` closes everything, as a crash does.
    """

    def __init__(self, port=0):
        self.server = socket.create_server(("127.0.0.1", port))
        self.port = self.server.getsockname()[1]
        self.url = f"rtsp://user:secret@127.0.0.1:{self.port}/stream"
        self.number, self.links, self.threads, self.stopped = 0, [], [], threading.Event()
        self.start(self.accept)

    def start(self, work, *args):
        self.threads.append(threading.Thread(target=work, args=args, daemon=True))
        self.threads[-1].start()

    def accept(self):
        while not self.stopped.is_set():
            try:
                link, _ = self.server.accept()
            except OSError:
                return
            self.links.append(link)
            self.start(self.serve, link)

    def serve(self, link):
        sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
        sdp += "a=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
        try:
            with link.makefile("rb") as lines:
                while request := lines.readline().decode():
                    headers = {}
                    while line := lines.readline().decode().strip():
                        name, _, value = line.partition(":")
                        headers[name.lower()] = value.strip()
                    method, extra, body = request.split()[0], "", ""
                    if method == "DESCRIBE":
                        extra, body = "Content-Type: application/sdp\r\n", sdp
                    elif method == "SETUP":
                        extra = f"Transport: {headers['transport']}\r\n"
                        assert "interleaved=0-1" in headers["transport"]
                    elif method == "OPTIONS":
                        extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                    answer = f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\nSession: 1\r\n{extra}"
                    link.sendall(f"{answer}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                    if method == "PLAY":
                        self.play(link)
                        return
        except OSError:
            return

    def play(self, link):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp:
            rtp.bind(("127.0.0.1", 0))
            rtp.settimeout(5)
            self.start(self.relay, rtp, link)
            muxer = Muxer(f"rtp://127.0.0.1:{rtp.getsockname()[1]}?pkt_size=1200", "rtp")
            begun, first = time.monotonic(), self.number
            while not self.stopped.is_set():
                time.sleep(max(0.0, begun + (self.number - first) / RATE - time.monotonic()))
                muxer.frame(self.number, pts=self.number - first)
                self.number += 1
            muxer.close()

    def relay(self, rtp, link):
        try:
            while not self.stopped.is_set():
                packet = rtp.recv(65536)
                link.sendall(b"$\x00" + len(packet).to_bytes(2, "big") + packet)
        except OSError:
            return

    def stop(self):
        self.stopped.set()
        for each in (self.server, *self.links):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)
        for each in (self.server, *self.links):
            each.close()


if __name__ == "__main__":
    kind, port, frames = sys.argv[1:4]
    assert kind == "udp"
    send(f"udp://127.0.0.1:{port}?pkt_size=1316", int(frames), first=int(sys.argv[4]) if sys.argv[4:] else 0, klv=True)
