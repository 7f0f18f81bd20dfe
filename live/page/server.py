"""Serves the page: /, /state.json, /frame.jpg, /map.png, /metrics, /healthz. Reading only.

On this machine's own address anybody here may look. On another address a token is needed, because a camera's pictures
are nobody else's: in the address once (?token=...), then as a cookie, or in an Authorization header.
"""

import hmac
import ipaddress
import json
import secrets
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dlink.live.page.board import Board
from dlink.live.page.metrics import TYPE, metrics
from dlink.runtime import BadInput

LOCAL = "127.0.0.1"
NAMES = ("localhost", "127.0.0.1", "::1")
PATIENCE = 2.0  # seconds that /state.json waits for news
MOST = 32  # connections at once
LONGEST = 15.0  # seconds of a connection, so that slow clients hold none for ever
COOKIE = "dlink-token"
LOOK = 0.2  # seconds
FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Server:
    """The page at an address, in threads of its own. Close it, or use it in a `with` block.

    Args:
        board: What it shows.
        host: Address of this machine. Another one than 127.0.0.1 needs a token.
        port: 0: any free one.
        token: What clients must know. None: a new one, where the address needs one.

    Raises:
        BadInput: The address cannot be had.
    """

    def __init__(self, board: Board, host: str = LOCAL, port: int = 8090, token: str | None = None) -> None:
        self.token = token or (None if is_local(host) else secrets.token_urlsafe(16))
        try:
            self.http = Http((host, port), board, self.token, is_local(host))
        except (OSError, OverflowError) as e:
            raise BadInput(f"{host}:{port}: the page cannot be served there: {e}; choose another --page") from e
        self.port = self.http.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/" + (f"?token={self.token}" if self.token else "")
        self.thread = threading.Thread(target=self.http.serve_forever, name="dlink-page", daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], board: Board, token: str | None, local: bool) -> None:
        self.board, self.token, self.local = board, token, local
        self.links: dict[socket.socket, float] = {}  # and when each began
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.page = files("dlink.live.page").joinpath("page.html").read_text("utf-8")
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, unless there are too many: then it is closed."""
        if len(self.links) >= MOST:
            with suppress(OSError):
                request.sendall(FULL)
            super().shutdown_request(request)
            return
        self.links[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.links.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End connections that last too long. http.server calls this twice a second."""
        for link, begun in list(self.links.items()):
            if time.monotonic() - begun > LONGEST:
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:  # this process has too many files open
            time.sleep(LOOK)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error."""


class Handler(BaseHTTPRequestHandler):
    server: Http
    server_version, sys_version = "dlink", ""
    protocol_version = "HTTP/1.1"
    timeout = 5  # seconds for the next bytes of a request

    def do_HEAD(self) -> None:  # http.server's name
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if self.server.local and self.host() not in NAMES:  # another site's name that leads here
            self.answer(HTTPStatus.FORBIDDEN, "this page is for this machine alone")
        elif parts.path == "/healthz":
            self.answer(HTTPStatus.OK, "ok\n")
        elif not self.is_allowed(query):
            self.answer(HTTPStatus.UNAUTHORIZED, "the address needs its token: ?token=...\n")
        elif parts.path == "/" and "token" in query:
            self.send_response(HTTPStatus.SEE_OTHER)
            self.send_header("Set-Cookie", f"{COOKIE}={self.server.token}; HttpOnly; SameSite=Strict; Path=/")
            self.send_header("Location", "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.content(parts.path, query)

    def content(self, path: str, query: dict[str, list[str]]) -> None:
        board = self.server.board
        if path == "/":
            nonce = secrets.token_urlsafe(12)
            page = self.server.page.replace("NONCE", nonce).replace("BOARD", setting(board))
            self.answer(HTTPStatus.OK, page, "text/html; charset=utf-8", nonce)
        elif path == "/state.json":
            newer = query.get("newer_than", ["-1"])[0]
            state = board.wait(int(newer) if newer.isdecimal() else -1, PATIENCE)
            self.answer(HTTPStatus.OK, json.dumps(state), "application/json")
        elif path == "/frame.jpg":
            self.picture(board.picture(query.get("roads") != ["0"]), "image/jpeg")
        elif path == "/map.png":
            self.picture(board.map_picture(), "image/png")
        elif path == "/metrics":
            self.answer(HTTPStatus.OK, metrics(board), TYPE)
        else:
            self.answer(HTTPStatus.NOT_FOUND, "not here\n")

    def host(self) -> str:
        host = self.headers.get("Host", "")
        return host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]

    def is_allowed(self, query: dict[str, list[str]]) -> bool:
        if self.server.token is None:
            return True
        given = query.get("token", [""])[0] or self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        given = given or (cookie.value if cookie else "")
        return hmac.compare_digest(given.encode(), self.server.token.encode())

    def picture(self, data: bytes | None, kind: str) -> None:
        if data is None:
            self.answer(HTTPStatus.NOT_FOUND, "there is none yet\n")
        else:
            self.answer(HTTPStatus.OK, data, kind)

    def answer(
        self, status: HTTPStatus, body: str | bytes, kind: str = "text/plain; charset=utf-8", nonce: str = ""
    ) -> None:
        data = body.encode() if isinstance(body, str) else body
        own = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; connect-src 'self'; "
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")  # a client notices at once that the server is gone
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", f"default-src 'none'; {own if nonce else ''}frame-ancestors 'none'")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def setting(board: Board) -> str:
    """What the page is told once, as JSON that is safe within a script."""
    values = {"title": board.title, "deadline": board.deadline, "assumes": list(board.assumes)}
    return json.dumps(values).replace("<", "\\u003c")
