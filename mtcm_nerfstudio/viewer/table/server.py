"""The server of the page with the table: a few addresses over the session, for whoever opened the page.

It listens on the loopback address unless told otherwise. What changes anything needs the secret that is in the page, so
no other site that is open in the same browser can decide about frames here; and a request must name this machine by an
address or by its own name, so no other name that somebody points at it will do. Of the scene that cannot be said: viser
answers whoever opens its port, with the pictures that are in it. So what decides is not there, but here.
"""

import ipaddress
import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from mtcm_nerfstudio.report.verdict_style import SIGNS
from mtcm_nerfstudio.viewer.colours import VERDICTS
from mtcm_nerfstudio.viewer.session import Session
from mtcm_nerfstudio.viewer.table.rows import changes, head, table_csv
from mtcm_nerfstudio.viewer.thumbnail_cache import ThumbnailCache

_SIDES = (64, 96, 640)
"""Sizes in px in which pictures are to be had."""
_LONGEST = 10_000
"""Bytes of what a page may ask for."""
_PORTS = 50
"""Ports that are tried."""
_QUIET_SECONDS = 15.0
"""After so long without news a page is told that the server is still there."""
_TYPES = {"css": "text/css", "js": "text/javascript"}

PointOut = Callable[[Literal["place", "box"] | None], None]


class TableServer:
    """Serves the page until it is stopped."""

    def __init__(self, session: Session, thumbnails: ThumbnailCache, host: str, port: int, name: str) -> None:
        """Take a port; nothing is answered yet.

        Args:
            session: what is shown.
            thumbnails: of its frames.
            host: address to listen on.
            port: to listen on; where it or the one after it is taken, the next.
            name: of the capture.

        Raises:
            OSError: the address cannot be listened on.
            ValueError: it is one of IPv6.
        """
        if ":" in host:
            raise ValueError(f"--host {host}: give a name or an address of IPv4, such as 127.0.0.1 or 0.0.0.0")
        self.session, self.thumbnails, self.name, self.host = session, thumbnails, name, host
        self.secret, self.opening = secrets.token_urlsafe(16), secrets.token_urlsafe(6)
        self.scene_port: int | None = None
        self.fly_to_selected: Callable[[], None] = lambda: None
        self.point_out: PointOut = lambda how: None
        self.stopped = threading.Event()
        self._server = _bound(host, port, type("Handler", (_Handler,), {"table": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, name="mtcm table", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    @property
    def shown_host(self) -> str:
        """The host as somebody on this machine would type it."""
        return "localhost" if self.host == "0.0.0.0" else self.host

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{self.shown_host}:{self.port}"

    def start(self, scene_port: int, fly_to_selected: Callable[[], None], point_out: PointOut) -> None:
        """Begin to answer.

        Args:
            scene_port: of the viser server with the scene.
            fly_to_selected: flies the scene's pages to the frame looked at.
            point_out: lets the next click or rectangle in the scene mark frames, or ends that (None).
        """
        self.scene_port, self.fly_to_selected, self.point_out = scene_port, fly_to_selected, point_out
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self.stopped.set()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def answers_to(self, host: str) -> bool:
        """Tell whether a request that names this host may be meant for this server."""
        with suppress(ValueError):
            name = urlsplit(f"//{host}").hostname or ""
            own = socket.gethostname().lower()
            return name in ("localhost", self.host.lower(), own, f"{own}.local", socket.getfqdn()) or _is_address(name)
        return False

    def act(self, asked: dict[str, Any]) -> None:
        """Do what a page asks for; it names the frame that it decides about, for another page may look at another one.

        Raises:
            ValueError: it asks for something else than there is.
        """
        session, index, action = self.session, asked.get("frame"), asked.get("action")
        if index is not None and not (type(index) is int and 0 <= index < len(session.state.decisions.frames)):
            raise ValueError(f"there is no frame {index!r}")
        actions: dict[Any, Callable[[], None]] = {
            "select": lambda: session.select(index),
            "keep": lambda: session.decide(True, index),
            "drop": lambda: session.decide(False, index),
            "keep marked": lambda: session.decide_marked(True),
            "drop marked": lambda: session.decide_marked(False),
            "unmark": lambda: self.point_out(None),
            "place": lambda: self.point_out("place"),
            "box": lambda: self.point_out("box"),
            "undo": session.undo,
            "next": lambda: session.step(1),
            "previous": lambda: session.step(-1),
            "go": self.fly_to_selected,
            "threshold": lambda: session.preview_threshold(min(1.0, max(0.0, float(asked["value"])))),
        }
        if action not in actions:
            raise ValueError(f"there is no action {action!r}")
        actions[action]()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    table: TableServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with a page, a picture, rows, or news for as long as the page is open."""
        address = urlsplit(self.path)
        if not self.table.answers_to(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.FORBIDDEN)
        elif address.path == "/":
            self._send(self._page().encode(), "text/html; charset=utf-8")
        elif address.path in ("/table.css", "/table.js"):
            self._send(_asset(address.path[1:]).encode(), _TYPES[address.path.rsplit(".", 1)[1]])
        elif address.path == "/frames.csv":
            self._send(table_csv(self.table.session.state).encode(), "text/csv; charset=utf-8")
        elif address.path == "/picture":
            self._thumbnail(parse_qs(address.query))
        elif address.path == "/news":
            self._news()
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Do what the page asks for."""
        said = self.headers.get("X-MTCM", "").encode("utf-8", "replace")
        allowed = secrets.compare_digest(said, self.table.secret.encode())
        if not (allowed and self.table.answers_to(self.headers.get("Host", ""))):
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        try:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 <= length <= _LONGEST:
                raise ValueError(f"ask in at most {_LONGEST} bytes")
            self.table.act(json.loads(self.rfile.read(length)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        self._json({"selected": self.table.session.state.selected})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is for people."""

    def _page(self) -> str:
        table = self.table
        facts = {
            "secret": table.secret,
            "opening": table.opening,
            "scenePort": table.scene_port,
            "name": table.name,
            "signs": SIGNS,
            "colours": {name: f"rgb{colour}" for name, colour in VERDICTS.items()},
        }
        text = json.dumps(facts).replace("<", "\\u003c")
        return _asset("table.html").replace("{{facts}}", text)

    def _thumbnail(self, query: dict[str, list[str]]) -> None:
        try:
            index, side = int(query["frame"][0]), int(query["side"][0])
        except (KeyError, ValueError):
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        count = len(self.table.session.state.decisions.frames)
        data = self.table.thumbnails.jpeg(index, side) if 0 <= index < count and side in _SIDES else None
        if data is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._send(data, "image/jpeg", "max-age=3600")

    def _news(self) -> None:
        """Tell the page of every change, as server-sent events, until it or the server goes."""
        table, due = self.table, threading.Event()
        unsubscribe = table.session.subscribe(due.set)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        known: dict[int, Any] = {}
        due.set()
        try:
            while not table.stopped.is_set():
                if not due.wait(_QUIET_SECONDS):
                    self.wfile.write(b": still here\n\n")
                    self.wfile.flush()
                    continue
                due.clear()
                if table.stopped.is_set():
                    return
                state = table.session.state
                news = {**head(state), "rows": changes(state, known)}
                self.wfile.write(f"data: {json.dumps(news)}\n\n".encode())
                self.wfile.flush()
        except OSError:
            return  # the page was closed
        finally:
            unsubscribe()

    def _json(self, content: Any) -> None:
        self._send(json.dumps(content, allow_nan=False).encode(), "application/json")

    def _send(self, data: bytes, kind: str, cache: str = "no-store") -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", cache)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: HTTPStatus, why: str = "") -> None:
        data = (why or status.phrase).encode()
        self.send_response(status)
        self.send_header("Connection", "close")  # what was sent along may be unread
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of pages that went away in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    allow_reuse_address = os.name == "posix"  # elsewhere it would share a port that is in use


def _bound(host: str, port: int, handler: type[_Handler]) -> ThreadingHTTPServer:
    """Return a server on the first port that is free."""
    for candidate in range(port, port + _PORTS - 1):
        with suppress(OSError):
            return _Server((host, candidate), handler)
    return _Server((host, port + _PORTS - 1), handler)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _asset(name: str) -> str:
    return files("mtcm_nerfstudio.viewer.table").joinpath(name).read_text("utf-8")
