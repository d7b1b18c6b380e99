"""``splitfleet watch``: prints what devices say, one line per message as it comes, for people or for other programs."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tools.chosen import settings_of, typed
from tools.operator_link import NotReached, OperatorSettings
from tools.output import console, print_error
from tools.watch_view import RETAINED, heading, lines
from wire import channels
from wire.channels import Channel
from wire.codec import decode
from wire.errors import PayloadError, TopicError
from wire.inbox import Inbox
from wire.json_form import Labels, to_json, to_text
from wire.link import Connected, Received, Subscription
from wire.logs import start_logging
from wire.mqtt import Link
from wire.signals import stop_on_signals

log = logging.getLogger(__name__)

IDLE_S = 0.1
EVERY_DEVICE = "+"


class What(StrEnum):
    """What can be watched."""

    RESULTS = "results"
    OUTCOMES = "outcomes"
    DECISIONS = "decisions"
    STATE = "state"
    TELEMETRY = "telemetry"


CHANNELS: Mapping[What, Channel] = {
    What.RESULTS: channels.RESULT,
    What.OUTCOMES: channels.OUTCOMES,
    What.DECISIONS: channels.DECISION,
    What.STATE: channels.STATE,
    What.TELEMETRY: channels.TELEMETRY,
}


def watch(
    what: Annotated[What, typer.Argument(help="What to print.")],
    device: Annotated[
        str | None, typer.Option("--device", help="Only of this device [every device].", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line instead of columns.")] = False,
    site: Annotated[str | None, typer.Option("--site", help="Name of the site [default].", show_default=False)] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address of the broker [127.0.0.1].", show_default=False)
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of the broker [1883].", show_default=False)] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            "--settings", help="File with site and [link], for accounts and TLS, in place of these.", show_default=False
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option("--models", help="Folder whose models name the labels [this machine's].", show_default=False),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="End after so many messages.")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0.1, help="End after so long.")] = None,
) -> None:
    """Print messages of a site as they come, until Ctrl-C; what the broker retains (state, decisions) comes first.

    Results are the answers; outcomes are the devices' ledger: how each frame ended, with latency and energy.

    Example: splitfleet watch results --site demo --port 1883 --json | head -n 5
    """
    stop = stop_on_signals()
    given = typed(site=site, link=typed(host=host, port=port))
    chosen = settings_of(OperatorSettings, settings, given, {})
    watcher = Watcher(chosen, CHANNELS[what], device or EVERY_DEVICE, label_names(models), as_json=as_json)
    try:
        watcher.run(stop, count=count, seconds=seconds)
    except BrokenPipeError:  # whoever read us has enough; Python must not try to flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Watcher:
    """One channel of a site, on stdout; what goes wrong is told on stderr."""

    def __init__(
        self, settings: OperatorSettings, channel: Channel, device: str, labels: Labels, *, as_json: bool
    ) -> None:
        self.unreadable = 0
        self._settings = settings
        self._channel = channel
        self._labels = labels
        self._as_json = as_json
        self._printed = 0
        self._connected = False
        self._inbox = Inbox()
        self._out = console()
        wanted = Subscription(channels.topic_filter(settings.site, channel, device), channel.qos)
        name = f"watch-{settings.site}-{os.getpid()}-{time.time_ns() % 1_000_000}"
        link = replace(settings.link, session_expiry_s=0)
        self._link = Link(link, name, self._inbox, subscriptions=[wanted], clean_start=True)

    def run(self, stop: threading.Event, *, count: int | None, seconds: float | None) -> None:
        """Print until ``stop``, or enough came; raises ``NotReached`` when the time ended before a broker answered."""
        start_logging("WARNING", "splitfleet: %(message)s")  # also why the link cannot connect, in its own words
        end_s = time.monotonic() + seconds if seconds else None
        if not self._as_json:
            self._write(heading(self._channel))
        self._link.start()
        try:
            while not stop.is_set() and (end_s is None or time.monotonic() < end_s):
                for event in self._inbox.take(IDLE_S):
                    self._take(event)
                    if count is not None and self._printed >= count:
                        return
                if _reader_is_gone():
                    raise BrokenPipeError
                if not self._link.alive:
                    raise NotReached("the link's thread has ended")
        finally:
            self._link.stop(drain_s=0)
            self._summary()
        if seconds and not self._connected and not stop.is_set():
            link = self._settings.link
            raise NotReached(f"no broker answered at {link.host}:{link.port} within {seconds:g} s")

    def _take(self, event: object) -> None:
        match event:
            case Connected():
                if self._connected:
                    print_error("connected again")
                self._connected = True
            case Received() if event.payload:  # an empty one takes a retained message back
                self._show(event)

    def _show(self, event: Received) -> None:
        now_s = time.time()
        try:
            address = channels.parse_topic(event.topic)
            document = to_json(address, decode(address.channel, event.payload), int(now_s * 1000), self._labels)
        except (PayloadError, TopicError) as error:
            self.unreadable += 1
            log.warning("unreadable on %s: %s", event.topic, error)
            return
        self._printed += 1
        if self._as_json:
            sys.stdout.write(f"{to_text(document)}\n")
            sys.stdout.flush()
            return
        moment = RETAINED if event.retained else time.strftime("%H:%M:%S", time.localtime(now_s))
        for line in lines(address.channel, document, moment):
            self._write(line)

    def _write(self, line: Any) -> None:
        with self._out.capture() as painted:  # rich itself would end the process with 1 when the pipe is closed
            self._out.print(line, soft_wrap=True, markup=False)
        sys.stdout.write(painted.get())
        sys.stdout.flush()

    def _summary(self) -> None:
        if self.unreadable:
            print_error(f"{self.unreadable} unreadable messages were left out")
        if self._inbox.refused:
            print_error(f"{self._inbox.refused} messages came faster than they could be printed and were left out")


def label_names(models: Path | None) -> dict[str, tuple[str, ...]]:
    """Return the labels of each version below ``models``, else of those on this machine; raises ``CatalogError``."""
    from tflite_models.catalog import load_catalog
    from tools.prepared import every_version

    folders = load_catalog(models).folders.values() if models else [folder for _, folder in every_version().values()]
    return {folder.version.name: folder.version.labels for folder in folders}


def _reader_is_gone() -> bool:
    """Whether whoever read our output has ended, as ``head`` does: a quiet site might never let us find out."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(happened & (select.POLLERR | select.POLLHUP) for _, happened in poll.poll(0))
