"""The examples of live video, as far as this machine runs them."""

import dataclasses
import json
import os
import shutil
import site
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from dlink.live.notify import Watchdog, notify
from dlink.runtime import Spec, open_model
from tests.support.environments import ROOT
from tests.support.models import write_blur

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_blur(tmp_path_factory.mktemp("model") / "roads.onnx", Spec(tile=64), 2)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("g++")
    if not compiler or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux: apt-get install g++")
    out = tmp_path_factory.mktemp("c") / "worker_in_c"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", out, EXAMPLES / "worker_in_c.c"], check=True)
    return out


@pytest.fixture(scope="module")
def worker(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("socket") / "roads.sock"
    options = ["--socket", place, "--options", '{"threads": 1}']
    process = subprocess.Popen(
        [sys.executable, "-m", "dlink.live.worker", model, *options], stderr=subprocess.PIPE, text=True
    )
    assert "serves" in process.stderr.readline()
    yield place, process
    process.kill()
    process.communicate()


def write_ppm(path, image):
    path.write_bytes(b"P6\n%d %d\n255\n" % (image.shape[1], image.shape[0]) + image.tobytes())
    return path


@pytest.mark.parametrize("views", [8, 1])
def test_a_c_program_gets_the_roads_that_python_gets(program, worker, model, tmp_path, views):
    image = np.random.default_rng(views).integers(0, 256, (90, 131, 3), np.uint8)
    picture = write_ppm(tmp_path / "a.ppm", image)
    done = subprocess.run(
        [program, worker[0], picture, tmp_path / "roads.pgm", str(views)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0 and done.stderr.startswith(f"{views} views"), done.stderr
    data = (tmp_path / "roads.pgm").read_bytes()
    assert data.startswith(b"P5\n131 90\n255\n")
    with open_model(model, threads=1) as opened:
        np.testing.assert_array_equal(np.frombuffer(data[14:], np.uint8).reshape(90, 131), opened.levels(image, views))


def test_a_c_program_shows_what_the_worker_refuses_and_what_is_no_picture(program, worker, tmp_path):
    picture = write_ppm(tmp_path / "a.ppm", np.zeros((8, 8, 3), np.uint8))
    for arguments, words in (
        ([worker[0], picture, tmp_path / "out.pgm", "3"], "BadInput: views must be 8, 4, 1 or adaptive, got 3"),
        ([worker[0], __file__, tmp_path / "out.pgm", "1"], "not a binary PPM"),
        ([tmp_path / "none.sock", picture, tmp_path / "out.pgm", "1"], "No such file"),
    ):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=100)
        assert done.returncode == 1 and words in done.stderr
    assert not (tmp_path / "out.pgm").exists()


def test_systemd_hears_that_a_flight_is_ready_and_lives(tmp_path, monkeypatch):
    for address in (str(tmp_path / "notify"), f"\0dlink-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.settimeout(10)
            monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
            assert notify("READY=1") and manager.recv(100) == b"READY=1"
            watchdog = Watchdog()
            watchdog.look(offered=5, waiting=1, words="fine")
            assert manager.recv(100) == b"WATCHDOG=1\nSTATUS=fine"
            watchdog.look(offered=9, waiting=5, words="stuck")  # no frame has ended since
            watchdog.look(offered=9, waiting=0, words="idle")
            watchdog.look(offered=9, waiting=0, words="idle still")
            assert [manager.recv(100)[11:] for _ in range(2)] == [b"STATUS=idle", b"STATUS=idle still"]
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify("READY=1")


def test_the_unit_is_one_that_systemd_takes():
    unit = EXAMPLES / "systemd" / "dlink-live.service"
    text = unit.read_text()
    assert "Type=notify" in text and "WatchdogSec=" in text and "KillSignal=SIGINT" in text
    command = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    from dlink.cli.live import live

    words = command.partition("dlink-live ")[2].replace("$$(date +%%Y%%m%%d-%%H%%M%%S)'", "now").split()
    names = {option for param in live.params for option in (*param.opts, *param.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= names


POSE = {"latitude": 47.0, "longitude": 8.0, "height_m": 120.0, "yaw": 30.0, "pitch": -90.0, "roll": 0.0, "fov": 60.0}


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_tak_server_gets_events_of_the_base_schema(tmp_path, kind):
    rows = [{"id": i, "what": "roads", "captured": i * 0.6, "utc": 1.7e9 + i * 0.6, "pose": POSE} for i in range(4)]
    (tmp_path / "roads.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"cut')
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)

        def hear():
            if kind == "tcp":
                server.listen(1)
                link, _ = server.accept()
                with link:
                    data = b""
                    while part := link.recv(65536):
                        data += part
                found.extend(ElementTree.fromstring(b"<all>" + data + b"</all>"))
            else:
                found.extend(ElementTree.fromstring(server.recv(65536)) for _ in range(4))

        if kind == "tcp":
            server.listen(1)
        thread = threading.Thread(target=hear)
        thread.start()
        address = f"{kind}:127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, EXAMPLES / "tak_cot.py", tmp_path, address, "--name", "falcon", "--once"]
        subprocess.run(command, check=True, timeout=100)
        thread.join(60)
    assert [event.get("uid") for event in found] == ["dlink-falcon", "dlink-falcon-view"] * 2  # one pair a second
    for event in found:
        assert (event.tag, event.get("version"), event.get("how")) == ("event", "2.0", "m-g")
        assert event.get("type").split("-")[0] in ("a", "u")
        times = [time.strptime(event.get(name)[:19], "%Y-%m-%dT%H:%M:%S") for name in ("time", "start", "stale")]
        assert all(event.get(name).endswith("Z") for name in ("time", "start", "stale")) and times[0] < times[2]
        point = event.find("point")
        assert abs(float(point.get("lat")) - 47) < 0.01 and abs(float(point.get("lon")) - 8) < 0.01
        assert [point.get(name) for name in ("hae", "ce", "le")] == ["9999999.0"] * 3
    corners = [link.get("point") for link in found[1].iter("link")]
    assert len(corners) == 5 and corners[0] == corners[-1]


class Publisher:
    def __init__(self):
        self.sent = []

    def publish(self, message):
        self.sent.append(message)


@pytest.fixture
def ros(monkeypatch):
    """A stand-in for rclpy's few calls, with real message types: rosbags' own, which are written as CDR.

    What a message does not have, and a field of another type, the CDR writer refuses, as rclpy does.
    """
    rosbags = pytest.importorskip("rosbags.typesys", reason="needs rosbags: pip install 'dlink[test]'")
    store = rosbags.get_typestore(rosbags.Stores.ROS2_HUMBLE)
    types_ = {name.rpartition("/")[2]: kind for name, kind in store.types.items()}

    def made(name, **defaults):
        def make(**values):
            assert values.keys() <= types_[name].__dataclass_fields__.keys(), f"{name} has no such field"
            return types.SimpleNamespace(**({key: value() for key, value in defaults.items()} | values))

        return make

    stamp = lambda: types_["Time"](sec=0, nanosec=0)  # noqa: E731
    header = lambda: types_["Header"](stamp=stamp(), frame_id="")  # noqa: E731

    class Node:
        def __init__(self, name):
            self.publishers, self.taken, self.warnings, self.subscriptions = {}, {}, [], []

        def declare_parameter(self, name, default):
            return types.SimpleNamespace(value=PARAMETERS.get(name, default))

        def create_publisher(self, kind, topic, qos):
            return self.publishers.setdefault(topic, Publisher())

        def create_subscription(self, kind, topic, callback, qos):
            assert qos.depth == 1
            self.subscriptions.append(callback)

        def create_timer(self, seconds, callback):
            assert seconds > 0

        def get_logger(self):
            return types.SimpleNamespace(warning=lambda text, **_: self.warnings.append(text))

        def get_clock(self):
            now = types.SimpleNamespace(nanoseconds=int(1.7e9 * 1e9), to_msg=stamp)
            return types.SimpleNamespace(now=lambda: now)

        def destroy_node(self):
            pass

    modules = {
        "rclpy": {"init": None, "spin": None, "try_shutdown": None},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {
            "QoSProfile": lambda **values: types.SimpleNamespace(**values),
            "HistoryPolicy": types.SimpleNamespace(KEEP_LAST=1),
            "ReliabilityPolicy": types.SimpleNamespace(BEST_EFFORT=2),
        },
        "sensor_msgs.msg": {"Image": made("Image", header=header)},
        "diagnostic_msgs.msg": {
            "DiagnosticArray": made("DiagnosticArray", header=header),
            "DiagnosticStatus": made("DiagnosticStatus"),
            "KeyValue": made("KeyValue"),
        },
    }
    for name, values in modules.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("sensor_msgs", "diagnostic_msgs"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    return store, types_


PARAMETERS = {}


def as_cdr(store, types_, name, message):
    """A message written as CDR and read again; rosbags refuses one whose fields do not fit."""

    def typed(kind, value):
        if isinstance(value, types.SimpleNamespace):
            cls = types_[kind]
            fields = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
            return cls(**{field: typed_field(field, vars(value)[field]) for field in fields})
        return value

    def typed_field(field, value):
        if field == "status":
            return [typed("DiagnosticStatus", each) for each in value]
        if field == "values":
            return [typed("KeyValue", each) for each in value]
        if field == "level":
            return int.from_bytes(value, "little")
        return np.frombuffer(value, np.uint8) if field == "data" else value

    full = next(full for full in store.types if full.rpartition("/")[2] == name)
    return store.deserialize_cdr(store.serialize_cdr(typed(name, message), full), full)


def test_a_ros_node_gives_masks_with_the_stamp_of_their_image(ros, model):
    store, types_ = ros
    PARAMETERS.update(model=str(model), deadline=60.0)
    sys.path.insert(0, str(EXAMPLES / "ros2" / "dlink_roads"))
    try:
        from dlink_roads.roads import Image, RoadsNode

        node = RoadsNode()
        picture = np.random.default_rng(3).integers(0, 256, (30, 41, 3), np.uint8)
        rows = np.zeros((30, 128), np.uint8)  # rows are longer than their pixels
        rows[:, : 3 * 41] = picture[..., ::-1].reshape(30, -1)
        message = Image(height=30, width=41, encoding="bgr8", is_bigendian=0, step=128)
        message.header = types_["Header"](stamp=types_["Time"](sec=1_700_000_000 - 1, nanosec=5), frame_id="cam")
        message.data = rows.tobytes()
        node.subscriptions[0](message)
        end = time.monotonic() + 60
        while not node.publishers["roads"].sent:
            assert time.monotonic() < end
            node.give()
            time.sleep(0.01)
        node.offer(Image(height=1, width=1, encoding="mono16", step=2))
        node.report()
        assert node.age > 1 and node.refused == 1 and "mono16" in node.warnings[-1]
        mask = as_cdr(store, types_, "Image", node.publishers["roads"].sent[0])
        assert (mask.header.stamp.sec, mask.header.stamp.nanosec, mask.header.frame_id) == (1_699_999_999, 5, "cam")
        with open_model(model) as opened:
            np.testing.assert_array_equal(mask.data.reshape(mask.height, mask.step), opened.mask(picture))
        status = as_cdr(store, types_, "DiagnosticArray", node.publishers["/diagnostics"].sent[0]).status[0]
        assert (status.level, status.message) == (0, "running")
        assert {each.key: each.value for each in status.values}["offered"] == "1"
    finally:
        node.destroy_node()
        sys.path.pop(0)
        for name in [name for name in sys.modules if name.startswith("dlink_roads")]:
            del sys.modules[name]


def test_gstreamers_sink_gives_frames_with_their_age(model, tmp_path):
    python = Path("/usr/bin/python3")
    probe = "import gi; gi.require_version('GstApp', '1.0'); from gi.repository import GstApp"
    if not python.exists() or subprocess.run([python, "-c", probe], capture_output=True).returncode:
        pytest.skip("needs GStreamer's Python: apt-get install python3-gi gir1.2-gst-plugins-base-1.0")
    version = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
    if version.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip("needs GStreamer's Python to be of this version")
    here = tmp_path / "env"  # as a user makes it, with links to what is installed
    subprocess.run([python, "-m", "venv", "--without-pip", "--system-site-packages", here], check=True)
    packages = next(here.glob("lib/python*/site-packages"))
    code = "import site; " + "; ".join(f"site.addsitedir({p!r})" for p in site.getsitepackages())
    (packages / "installed.pth").write_text(code + "\n")
    command = [here / "bin" / "python", EXAMPLES / "gstreamer_appsink.py", model, "--frames", "5"]
    pipeline = "videotestsrc is-live=true ! video/x-raw,width=101,height=60,framerate=20/1"
    done = subprocess.run([*command, pipeline], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    ages = [float(line.split()[3]) for line in done.stdout.splitlines()]
    assert len(ages) == 5 and all(0 <= age < 60 for age in ages)
