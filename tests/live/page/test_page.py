"""The ground station's page in a real browser, and its server: what it shows, when it warns, whom it lets in."""

import http.client
import json
import re
import socket
import threading
import time
from contextlib import ExitStack

import cv2
import numpy as np
import pytest

from dlink.live import Counts, Frame, Pose, Roads
from dlink.live.ground.ground import Flat
from dlink.live.page import server as server_module
from dlink.live.page.board import Board, MapPicture
from dlink.live.page.server import Server
from dlink.runtime import BadInput
from tests.support.browser import Browser

COUNTS = Counts(offered=10, roads=4, late=1, replaced=2, expired=1, failed=1, left=0, waiting=1)
POSE = Pose(latitude=47.0, longitude=8.0, height_m=120.0, yaw=30.0, pitch=-90.0, roll=0.0, fov=60.0)


def roads(number=3, pose=POSE, age=0.05, value=60):
    now = time.monotonic()
    frame = Frame(id=number, captured=now - age, pixels=np.zeros((1, 1, 3), np.uint8), pose=pose)
    image = np.full((180, 320, 3), value, np.uint8)
    levels = np.zeros((180, 320), np.uint8)
    levels[:, 100:200] = 255
    return Roads(
        frame=frame, image=image, levels=levels, threshold=0.5, rung=4, views=4.0, scale=0.4, begun=now, done=now,
        late=False,
    )  # fmt: skip


def board(**values):
    board = Board("udp:5000", 0.2, ("the ground is flat",))
    board.tell(COUNTS, **({"state": "running", "source_state": "running", "restarts": 2} | values))
    return board


def shown(board, pose=POSE, **values):
    footprint = Flat().footprint(pose, 320, 180) if pose else None
    board.show(roads(pose=pose, **values), footprint)


@pytest.fixture
def server():
    with Server(board(), port=0) as server:
        yield server


def ask(server, path, **headers):
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    link.request("GET", path, headers=headers)
    answer = link.getresponse()
    body = answer.read()
    link.close()
    return answer, body


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


def visit(browser, server, width=1440, dark=False):
    browser.said.clear()
    browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.ask("Emulation.setEmulatedMedia", features=[scheme])
    browser.ask("Page.navigate", url=server.url)
    until(browser, f"location.href === '{server.url}' && document.readyState === 'complete'")


def until(browser, script, wanted=True):
    """Wait until an expression in the page has a value."""
    end = time.monotonic() + 60
    while (found := browser.run(script)) != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.05)


def text(name):
    return f"document.getElementById('{name}').textContent"


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1440, False), (1440, True)])
def test_the_page_shows_the_frame_the_numbers_and_the_map(browser, server, width, dark):
    visit(browser, server, width, dark)
    keep = threading.Event()

    def play():  # as a flight does, so that the roads are not old
        number = 0
        while not keep.wait(0.1):
            shown(server.http.board, number=number)
            number += 1

    thread = threading.Thread(target=play)
    thread.start()
    try:
        seen = np.ones((40, 60), bool)
        corners = (47.001, 7.999), (47.001, 8.001), (46.999, 7.999)
        server.http.board.show_map(MapPicture(np.zeros((40, 60), np.uint8), seen, corners))
        until(browser, "document.getElementById('picture').naturalWidth", 320)
        until(browser, text("state"), "Live")
        assert browser.run(text("title")) == "udp:5000"
        numbers = browser.run("[...document.querySelectorAll('#frames dd')].map(each => each.textContent).join(' ')")
        assert numbers == "10 4 1 2 1 1 0 1"
        assert "4" in browser.run(text("network")) and "120.0 m" in browser.run(text("camera"))
        until(browser, "/The bar is/.test(document.getElementById('scale').textContent)")
        drawn = "[...document.getElementById('map').getContext('2d').getImageData(0, 0, 300, 300).data].some(Boolean)"
        until(browser, drawn)
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert "the ground is flat" in browser.run(text("assumes"))
        assert float(browser.run("parseFloat(document.getElementById('age').textContent)")) < 30
    finally:
        keep.set()
        thread.join()
    here = f"127.0.0.1:{server.port}"  # another test's page may have missed its server
    assert not [line for line in browser.said if "asked for" not in line and here in line]
    assert all("127.0.0.1" in line for line in browser.said if "asked for" in line)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"state": "restarting"}, "The engine is being opened again"),
        ({"source_state": "lost"}, "The video is lost"),
        ({"state": "closed"}, "Ended"),
    ],
)
def test_the_page_says_what_is_wrong(browser, server, state, words):
    shown(server.http.board)
    visit(browser, server)
    server.http.board.tell(COUNTS, **({"state": "running", "source_state": "running"} | state))
    until(browser, text("state"), words)
    assert browser.run("getComputedStyle(document.getElementById('notice')).display") == "grid"


def test_idle_connections_are_limited_and_ended(monkeypatch):
    monkeypatch.setattr(server_module, "MOST", 4)
    monkeypatch.setattr(server_module, "LONGEST", 0.5)
    with Server(board(), port=0) as server, ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60)) for _ in range(4)]
        for link in idle:
            link.sendall(b"GET / HTTP/1.1\r\n")  # and never the rest
        wait_for(lambda: len(server.http.links) == 4)
        assert ask(server, "/healthz")[0].status == 503
        assert idle[0].recv(1) == b""  # the server ends it
        wait_for(lambda: not server.http.links)
        assert ask(server, "/healthz")[0].status == 200


def wait_for(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_page_is_served_over_ipv6_too():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return  # a machine without the address
    with Server(board(), "::1", 0) as server:
        link = http.client.HTTPConnection("::1", server.port, timeout=30)
        link.request("GET", "/healthz")
        assert link.getresponse().status == 200 and server.url.startswith("http://[::1]:")
        link.close()


def test_roads_that_are_old_are_marked_so_also_when_the_server_is_gone(browser):
    with Server(board(), port=0) as server:
        shown(server.http.board, age=3.0)
        visit(browser, server)
        until(browser, "/No new roads for [0-9]+ s/.test(document.getElementById('state').textContent)")
        assert browser.run("document.getElementById('picture').className") == "old"
        assert browser.run("document.getElementById('age').classList.contains('bad')")
    until(browser, text("state"), "No connection to dlink")


def test_without_a_frame_and_a_pose_the_page_says_so(browser, server):
    visit(browser, server)
    until(browser, text("state"), "Waiting for the first frame")
    shown(server.http.board, pose=None)
    until(browser, "/not known/.test(document.getElementById('camera').textContent)")
    assert browser.run(text("scale")) == "No position yet."


def test_the_roads_can_be_taken_off_the_picture(server):
    shown(server.http.board)
    pictures = [
        cv2.imdecode(np.frombuffer(ask(server, f"/frame.jpg{query}")[1], np.uint8), cv2.IMREAD_COLOR)
        for query in ("", "?roads=0")
    ]
    assert pictures[0].shape == (180, 320, 3)
    assert abs(int(pictures[0][90, 150, 2]) - int(pictures[1][90, 150, 2])) > 50
    assert np.abs(pictures[0][90, 20].astype(int) - pictures[1][90, 20]).max() < 4


def test_a_title_cannot_become_a_script(browser):
    evil = Board("</script><script>document.title = 'taken'</script>", 0.2)
    with Server(evil, port=0) as server:
        visit(browser, server)
        until(browser, "document.getElementById('title').textContent.startsWith('</script>')")
        assert browser.run("document.title") != "taken"


def test_news_end_a_wait_and_nothing_new_ends_it_too(server):
    shown(server.http.board)
    version = json.loads(ask(server, "/state.json")[1])["version"]
    begun = time.monotonic()
    threading.Timer(0.2, shown, (server.http.board,)).start()
    assert json.loads(ask(server, f"/state.json?newer_than={version}")[1])["version"] > version
    assert time.monotonic() - begun < 30
    assert json.loads(ask(server, "/state.json?newer_than=999999")[1])["counts"]["offered"] == 10


def test_nothing_is_there_before_the_first_frame(server):
    assert ask(server, "/frame.jpg")[0].status == 404 and ask(server, "/map.png")[0].status == 404
    assert json.loads(ask(server, "/state.json")[1])["frame"] is None
    assert ask(server, "/healthz")[1] == b"ok\n" and ask(server, "/../etc/passwd")[0].status == 404


def test_another_sites_name_is_refused_on_this_machine(server):
    assert ask(server, "/state.json", Host="evil.example:8090")[0].status == 403
    assert ask(server, "/state.json", Host=f"localhost:{server.port}")[0].status == 200


def test_another_address_needs_the_token():
    with Server(board(), host="0.0.0.0", port=0) as server:
        token = server.token
        assert len(token) > 20 and server.url.endswith(f"?token={token}")
        assert ask(server, "/state.json")[0].status == 401 and ask(server, "/")[0].status == 401
        assert ask(server, "/state.json?token=wrong")[0].status == 401
        assert ask(server, "/metrics", Authorization=f"Bearer {token}")[0].status == 200
        answer, _ = ask(server, f"/?token={token}")
        cookie = answer.getheader("Set-Cookie")
        assert answer.status == 303 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert ask(server, "/", Cookie=cookie.partition(";")[0])[0].status == 200
        assert ask(server, "/healthz")[0].status == 200


def test_only_reading_is_possible(server):
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    link.request("POST", "/state.json", body=b"{}")
    assert link.getresponse().status == 501
    link.close()


def test_a_port_that_is_taken_is_named(server):
    with pytest.raises(BadInput, match="the page cannot be served there"):
        Server(board(), port=server.port)


def test_metrics_have_prometheus_form_and_add_up(server):
    for age in (0.01, 0.12, 9.0):
        shown(server.http.board, age=age)
    answer, body = ask(server, "/metrics")
    assert answer.getheader("Content-Type").startswith("text/plain; version=0.0.4")
    samples, kinds = {}, {}
    for line in body.decode().splitlines():
        if line.startswith("# TYPE"):
            kinds[line.split()[2]] = line.split()[3]
        elif not line.startswith("# HELP"):
            name, labels, value = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"]*"\})? (\S+)', line).groups()
            assert any(name.removesuffix(end) in kinds for end in ("", "_bucket", "_sum", "_count"))
            samples[name + (labels or "")] = float(value)
    outcomes = sum(value for name, value in samples.items() if name.startswith("dlink_live_frames_total"))
    assert outcomes + samples["dlink_live_frames_waiting"] == samples["dlink_live_frames_offered_total"] == 10
    assert samples['dlink_live_age_seconds_bucket{le="0.05"}'] == 1
    assert samples['dlink_live_age_seconds_bucket{le="0.15"}'] == 2
    assert samples['dlink_live_age_seconds_bucket{le="+Inf"}'] == samples["dlink_live_age_seconds_count"] == 3
    assert samples["dlink_live_age_seconds_sum"] == pytest.approx(9.13, abs=0.1)
    assert samples["dlink_live_engine_restarts_total"] == 2 and kinds["dlink_live_age_seconds"] == "histogram"
