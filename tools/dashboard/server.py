"""Serves the pages: binds the socket, puts the door before everything, and ends in good order."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from tools.dashboard.door import Door
from tools.dashboard.feed import Feed
from tools.dashboard.pages import Pages
from tools.dashboard.settings import DashboardError, DashboardSettings, read_password

log = logging.getLogger(__name__)

TICK_S = 1.0
FAREWELL_S = 2
"""How long open connections may take to close at the end."""
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1f6f8b"/>'
    '<path d="M7 10h11M7 16h18M7 22h7" stroke="#fff" stroke-width="3" stroke-linecap="round"/></svg>'
)
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def serve(settings: DashboardSettings, stop: threading.Event, told: Callable[[str], None]) -> None:
    """Serve until ``stop`` is set or a signal comes; ``told`` is given the address. Raises ``DashboardError``."""
    password = read_password(settings.password_file) if settings.password_file else None
    _check_tls(settings)
    listener = _listener(settings)
    feed = Feed(settings)
    pages = Pages(settings.site, feed)
    pages.register()

    @asynccontextmanager
    async def ticking(_app: FastAPI) -> AsyncIterator[None]:
        ticker = asyncio.create_task(_tick(feed, pages, stop, server))
        yield
        ticker.cancel()
        with suppress(asyncio.CancelledError):
            await ticker

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=ticking)
    ui.run_with(
        app, title=f"splitfleet · {settings.site}", dark=None, tailwind=False, binding_refresh_interval=None,
        show_welcome_message=False, favicon=ICON, reconnect_timeout=10.0,
        message_history_length=50,
    )  # fmt: skip
    hosts = LOOPBACK_NAMES | {settings.host} if password is None else None
    door = Door(app, settings.site, password=password, hosts=hosts, clock=time.monotonic)
    server = uvicorn.Server(
        uvicorn.Config(
            door,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=FAREWELL_S,
            ssl_certfile=settings.tls.certificate if settings.tls else None,
            ssl_keyfile=settings.tls.key if settings.tls else None,
        )
    )
    feed.start()
    try:
        told(_address(settings, listener))
        if not stop.is_set():
            server.run(sockets=[listener])
    finally:
        feed.stop()
        listener.close()
    if not stop.is_set():
        raise DashboardError("the dashboard ended by itself: see its log")


async def _tick(feed: Feed, pages: Pages, stop: threading.Event, server: uvicorn.Server) -> None:
    """Take one picture per second for every visitor; without any there is nothing to do."""
    while True:
        begun_s = time.monotonic()
        if stop.is_set() or not feed.alive:
            server.should_exit = True
        elif pages.watched:
            try:
                pages.draw(feed.snapshot())
            except Exception:  # the outermost loop: one picture that fails must not freeze all pages
                log.exception("a picture could not be drawn")
        await asyncio.sleep(max(TICK_S - (time.monotonic() - begun_s), 0.05))


def _listener(settings: DashboardSettings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()  # who comes before the server is up waits
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        raise DashboardError(f"cannot listen on {place}: {error.strerror}; choose another --host or --port") from error
    return listener


def _check_tls(settings: DashboardSettings) -> None:
    if settings.tls is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls.certificate, settings.tls.key)
    except (OSError, ssl.SSLError) as error:
        files = f"{settings.tls.certificate} and {settings.tls.key}"
        raise DashboardError(f"cannot use certificate and key ({files}): {error.strerror or error}") from error


def _address(settings: DashboardSettings, listener: socket.socket) -> str:
    everywhere = settings.host in ("", "0.0.0.0", "::")
    host = socket.gethostname() if everywhere else f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls else 'http'}://{host}:{listener.getsockname()[1]}"
