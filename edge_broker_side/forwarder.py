"""The forwarder: a thread of the recorder's process that brings stored points to the metrics server."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from pathlib import Path

from edge_broker_side.backlog import Backlog
from edge_broker_side.forwarding import Fetch, Forwarding, Pace, Send, Wait
from edge_broker_side.influx import InfluxError, PointsRefused, Server, TooLarge, open_server
from edge_broker_side.influx_settings import InfluxSettings
from edge_broker_side.store import StoreError

log = logging.getLogger(__name__)

COMPLAIN_EVERY_S = 60.0
DRAIN_S = 3.0
"""What waits when the recorder ends is sent for so long; the rest waits for its next start."""
COUNTERS = ("forwarded", "forward_failures", "forward_refusals", "dead_letters")


class Forwarder:
    """Sends what waits, notes what arrived. Its attributes may be read by other threads."""

    def __init__(self, store: Path, settings: InfluxSettings, rng: random.Random) -> None:
        self.server = f"{settings.url} {settings.database}"
        self.reachable = False
        """Whether the last write reached the server."""
        self.problem = ""
        """Why it did not, in words that say what to do."""
        self.counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._store = store
        self._settings = settings
        pace = Pace(
            settings.batch_points,
            settings.batch_bytes,
            settings.period_s,
            settings.backoff_min_s,
            settings.backoff_max_s,
        )
        self._forwarding = Forwarding(pace, rng)
        self._backlog: Backlog | None = None
        self._server: Server | None = None
        self._complain_at_s = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="forwarder", daemon=True)

    def start(self) -> None:
        """Begin to forward."""
        self._thread.start()

    def close(self) -> None:
        """Send what waits, for a moment, and end."""
        self._stopping.set()
        self._thread.join(DRAIN_S + self._settings.timeout_s)
        if self._thread.is_alive():
            log.warning("the metrics server does not let go of the forwarder")

    def _serve(self) -> None:
        while not self._stopping.is_set():
            step = self._forwarding.next(time.monotonic())
            if isinstance(step, Wait):
                self._stopping.wait(step.until_s - time.monotonic())
            else:
                self._act(step)
        self._forwarding.hurry()
        end_s = time.monotonic() + DRAIN_S
        while time.monotonic() < end_s and not isinstance(step := self._forwarding.next(time.monotonic()), Wait):
            self._act(step)
        self._disconnect()

    def _act(self, step: Fetch | Send) -> None:
        """Do one step; whatever goes wrong is told, and tried again later."""
        try:
            self._do(step)
        except InfluxError as error:
            self._leave_server()
            self._trouble(str(error))
            self.counters["forward_failures"] += 1
            self._forwarding.failed(error, time.monotonic())
        except StoreError as error:
            self._begin_anew(str(error), self._settings.backoff_min_s)
        except Exception:
            log.exception("the forwarder failed; it goes on")
            self._begin_anew("an error of our own: see the log", self._settings.backoff_max_s)

    def _do(self, step: Fetch | Send) -> None:
        if self._backlog is None:
            self._backlog = Backlog(self._store)
        if isinstance(step, Fetch):
            rows = self._backlog.next(step.points, step.size_bytes)
            self._forwarding.fetched(rows, time.monotonic())
            return
        try:
            self._write(step)
        except (PointsRefused, TooLarge) as error:
            self.counters["forward_refusals"] += 1
            dead, reason = self._forwarding.failed(error, time.monotonic()), str(error)
            if dead and self._backlog.settle(dead, reason):
                self.counters["dead_letters"] += len(dead)
                log.warning("refused for good, kept among the dead letters: %s (%s)", reason, dead[0].line[:200])
            elif dead:
                self._forwarding.forget()
        else:
            if self._backlog.settle(step.rows):
                self.counters["forwarded"] += len(step.rows)
                self._forwarding.accepted(time.monotonic())
            else:
                self._forwarding.forget()
        if self.problem:
            log.info("%s takes points again", self.server)
        self.reachable, self.problem = True, ""

    def _write(self, step: Send) -> None:
        if self._server is None:
            self._server = open_server(self._settings)
        self._server.write([row.line for row in step.rows])

    def _begin_anew(self, problem: str, delay_s: float) -> None:
        """Let go of everything and begin at the cursor, which is where the store says."""
        self._disconnect()
        self._trouble(problem)
        self._forwarding.forget()
        self._forwarding.postpone(time.monotonic(), delay_s)

    def _trouble(self, problem: str) -> None:
        now_s = time.monotonic()
        if problem != self.problem or now_s >= self._complain_at_s:
            self._complain_at_s = now_s + COMPLAIN_EVERY_S
            log.warning("points wait in the store: %s", problem)
        self.reachable, self.problem = False, problem

    def _leave_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _disconnect(self) -> None:
        self._leave_server()
        if self._backlog is not None:
            self._backlog.close()
            self._backlog = None
