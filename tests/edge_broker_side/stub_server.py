"""A metrics server that answers as it is told: for what a real one cannot be made to say."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class Stub:
    """Answers every request with ``status``, ``body`` and ``headers``, and keeps the paths and headers it was asked."""

    url: str = ""
    status: int = 204
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    asked: list[Mapping[str, str]] = field(default_factory=list)


@contextmanager
def stub_server(**answer: object) -> Iterator[Stub]:
    """Run a stub on a free port."""
    stub = Stub(**answer)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            stub.paths.append(self.path)
            stub.asked.append(dict(self.headers))
            self.send_response(stub.status)
            for name, value in {**stub.headers, "Content-Length": str(len(stub.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(stub.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
