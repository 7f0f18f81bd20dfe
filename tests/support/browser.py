"""A real browser for tests: Debian's Chromium without a window, spoken to by the DevTools protocol over two pipes.

No package is needed for that: messages are JSON that ends with a zero byte, read by Chromium on its file descriptor 3
and written on 4 (https://chromedevtools.github.io/devtools-protocol). Keys are sent as the keyboard sends them, so
focus, Enter and Escape are the browser's own. Skips the test where there is no Chromium.
"""

import base64
import fcntl
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # Chromium refuses to run as root with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}


class Browser:
    """One page of a browser of its own. `said` are the lines of its console, and what it would not load."""

    def __init__(self, profile: Path):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip("needs a browser: apt-get install chromium")
        (read_end, self.out), (self.into, write_end) = os.pipe(), os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (read_end, write_end)]  # clear of 3 and 4
        log = os.open(profile / "browser.log", os.O_WRONLY | os.O_CREAT)
        actions = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in zip((*high, log, log), (3, 4, 1, 2), strict=True)]
        command = [program, *OPTIONS, f"--user-data-dir={profile / 'profile'}", "about:blank"]
        self.pid = os.posix_spawn(program, command, dict(os.environ), file_actions=actions, setpgroup=0)
        for fd in (read_end, write_end, *high, log):
            os.close(fd)
        self.said, self.count, self.rest, self.session = [], 0, b"", None
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        """Send a command and wait for its answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self.next()).get("id") != self.count:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def next(self):
        """The next message; what the console says is kept."""
        while b"\0" not in self.rest:
            block = os.read(self.into, 1 << 20)
            if not block:
                raise RuntimeError("the browser ended; see browser.log")
            self.rest += block
        line, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(line)
        if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(message["params"]))
        if message.get("method") == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not url.startswith(("file:", "data:")):
                self.said.append(f"asked for {url}")
        return message

    def open(self, page: Path, width: int, height: int, dark: bool = False):
        """Show a file in a window of this size, in CSS pixels."""
        mobile = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while self.next().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str):
        """The value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str):
        """Press a key, and wait until the page has done what follows."""
        typed = {"text": "\r"} if key == "Enter" else {}
        values = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **values, **typed)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **values)
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    def picture(self, path: Path, whole: bool = False):
        """Write what is seen, or the whole page, as PNG."""
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        os.close(self.out)
        os.close(self.into)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
