"""A stand-in of the hub on this machine: repositories in memory, and faults in the order that they are planted."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from typing import Self

LARGE = (".gguf", ".onnx", ".onnx_data")  # kept as LFS does: the hub tells their SHA-256
PIECE_BYTES = 16 * 1024


def git_blob(raw: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()


@dataclass
class Fault:
    """Of one answer."""

    status: int = 0  # instead of what was asked for
    retry_after: str = ""
    location: str = ""  # of a redirect
    cut_after: int | None = None  # bytes, then the connection ends
    hold_after: int | None = None  # bytes, then `release` is waited for
    release: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)  # it stands still
    flip: bool = False  # the last byte is another one
    whole: bool = False  # a range is not understood
    body: bytes | None = None  # of an answer that is none


@dataclass
class Repo:
    files: dict[str, bytes]
    lies: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the listing, by file

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def listing(self, name: str) -> dict[str, Any]:
        siblings = []
        for path, raw in self.files.items():
            row: dict[str, Any] = {"rfilename": path, "size": len(raw), "blobId": git_blob(raw)}
            if path.endswith(LARGE):
                row["lfs"] = {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "pointerSize": 130}
            siblings.append(row | self.lies.get(path, {}))
        return {"id": name, "modelId": name, "sha": self.commit, "siblings": siblings}


class StandIn:
    """`with StandIn() as hub:` serves at `hub.endpoint`."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: dict[str, list[Fault]] = {}  # by file, or "" for listings: one for each answer, then none
        self.token = ""  # that is wanted; "": none
        self.asked: list[tuple[str, dict[str, str]]] = []  # path with query, and headers in lower case
        hub = self

        class Handler(_Handler):
            stand_in = hub

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for fault in (fault for faults in self.faults.values() for fault in faults):
            fault.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def plant(self, file: str, *faults: Fault) -> None:
        self.faults.setdefault(file, []).extend(faults)

    def gets(self, file: str) -> list[dict[str, str]]:
        """The headers of each request for a file."""
        return [headers for path, headers in self.asked if path.endswith(f"/{file}")]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever is killed in mid-answer is no error here."""


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub = self.stand_in
        hub.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        path = unquote(urlsplit(self.path).path)
        if hub.token and self.headers.get("authorization") != f"Bearer {hub.token}":
            return self._answer(401)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self._list(match[1], match[2])
        if match := re.fullmatch(r"(?:/elsewhere)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._send_file(match[1], match[2], match[3])
        return self._answer(404)

    def _list(self, name: str, revision: str) -> None:
        fault = self._fault("")
        repo = self.stand_in.repos.get(name)
        if fault is not None:
            return self._answer(fault.status or 200, fault.body or b"{}", fault)
        if repo is None or revision not in ("main", repo.commit):
            return self._answer(404)
        return self._answer(200, json.dumps(repo.listing(name)).encode())

    def _send_file(self, name: str, revision: str, file: str) -> None:
        repo = self.stand_in.repos.get(name)
        if repo is None or file not in repo.files or revision not in ("main", repo.commit):
            return self._answer(404)
        fault, raw = self._fault(file) or Fault(), repo.files[file]
        if fault.status:
            return self._answer(fault.status, b"", fault)
        start, status = 0, 200
        if (wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))) and not fault.whole:
            start, status = int(wanted[1]), 206
            if start >= len(raw):
                return self._answer(416)
        self.send_response(status)
        self.send_header("X-Repo-Commit", repo.commit)
        self.send_header("ETag", f'"{hashlib.sha256(raw).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(raw) - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(raw) - 1}/{len(raw)}")
        self.end_headers()
        return self._send(raw[start:-1] + bytes([raw[-1] ^ fault.flip]), fault)

    def _send(self, raw: bytes, fault: Fault) -> None:
        n_sent = 0
        stops = [n for n in (fault.cut_after, fault.hold_after) if n is not None]
        try:
            for end in sorted({*range(PIECE_BYTES, len(raw), PIECE_BYTES), *stops, len(raw)}):
                self.wfile.write(raw[n_sent:end])
                n_sent = end
                if n_sent == fault.cut_after:
                    self.close_connection = True
                    return
                if n_sent == fault.hold_after:
                    fault.held.set()
                    fault.release.wait(60.0)
        except OSError:
            self.close_connection = True  # whoever asked has left

    def _fault(self, file: str) -> Fault | None:
        planted = self.stand_in.faults.get(file)
        return planted.pop(0) if planted else None

    def _answer(self, status: int, body: bytes = b"", fault: Fault | None = None) -> None:
        self.send_response(status)
        if fault is not None and fault.retry_after:
            self.send_header("Retry-After", fault.retry_after)
        if fault is not None and fault.location:
            self.send_header("Location", fault.location)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests look at `asked`."""
