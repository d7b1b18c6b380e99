"""Takes what mosquitto says line by line: counts refusals into a file, and passes on what is for people."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from edge_broker_side.refusals import Attempt, Refusals, Rights, add, for_people, refused

log = logging.getLogger(__name__)

FILE = "refused.json"
"""In the broker's folder."""
WRITE_EVERY_S = 1.0
CHUNK_BYTES = 65536
LINES_PER_PERIOD, PERIOD_S = 200, 60.0
MAX_LOG_BYTES = 10 << 20
"""A longer log file makes room for a new one; one older is kept beside it, as ``<name>.1``."""
MAX_LINE_BYTES = 1 << 20
"""A longer line is cut: the longest holds a topic of 64 KiB."""


class Budget:
    """Lets so many lines per minute through, and says how many it left out: strangers decide how many there are."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._spent = 0
        self._left_out = 0

    def spend(self, lines: bytes, now_s: float) -> bytes:
        """Return the lines that are still within bounds."""
        said = b""
        if now_s - self._since_s >= PERIOD_S:
            if self._left_out:
                said = b"(%d lines of the broker left out)\n" % self._left_out
            self._since_s, self._spent, self._left_out = now_s, 0, 0
        whole = lines.splitlines(keepends=True)
        kept = whole[: max(0, LINES_PER_PERIOD - self._spent)]
        self._spent += len(kept)
        self._left_out += len(whole) - len(kept)
        return said + b"".join(kept)


class BrokerLog:
    """A thread that must never lag: mosquitto waits for whoever reads what it says."""

    def __init__(self, source: IO[bytes], log_file: str | None, folder: Path, acl: Path | None) -> None:
        self.counts: Refusals = read_counts(folder)
        """Since the folder was made, over restarts."""
        self._source = source
        self._log_file = log_file
        self._file = folder / FILE
        self._acl = acl
        self._rights = self._read_rights()
        self._budget = Budget()
        self._changed = False
        self._write_at_s = 0.0
        self._thread = threading.Thread(target=self._run, name="broker-log", daemon=True)
        self._thread.start()

    def reload(self) -> None:
        """Judge subscriptions by the ACL file as it is now."""
        self._rights = self._read_rights()

    def close(self) -> None:
        """Wait until the last line has been taken; to be called when the broker has ended."""
        self._thread.join(timeout=5)

    def _read_rights(self) -> Rights | None:
        if self._acl is None:
            return None
        try:
            return Rights(self._acl.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            log.error("subscriptions are not judged: %s cannot be read: %s", self._acl, error)
            return None

    def _run(self) -> None:
        rest, ended = b"", False
        while not ended:
            ready, _, _ = select.select([self._source], [], [], WRITE_EVERY_S)
            chunk = os.read(self._source.fileno(), CHUNK_BYTES) if ready else b""
            lines, rest = _whole(rest + chunk)
            ended = bool(ready) and not chunk
            try:
                self._take(lines, time.monotonic(), ended)
            except Exception:  # the outermost loop: a broker whose words nobody takes stands still
                log.exception("some of the broker's words were not understood")
        self._source.close()

    def _take(self, lines: bytes, now_s: float, ended: bool) -> None:
        for attempt, account in refused(lines, self._rights):
            add(self.counts, attempt, account)
            self._changed = True
        if kept := self._budget.spend(for_people(lines), now_s):
            self._pass_on(kept)
        if self._changed and (ended or now_s >= self._write_at_s):
            self._write_at_s, self._changed = now_s + WRITE_EVERY_S, False
            self._write()

    def _pass_on(self, lines: bytes) -> None:
        with suppress(OSError, ValueError):  # a full disk, or a closed stderr, must not stop the broker
            if self._log_file is None:
                sys.stderr.write(lines.decode(errors="replace"))
                sys.stderr.flush()
            else:
                path = Path(self._log_file)
                with path.open("ab") as file:
                    file.write(lines)
                    full = file.tell() >= MAX_LOG_BYTES
                if full:
                    path.replace(path.with_name(f"{path.name}.1"))

    def _write(self) -> None:
        rows = [{"attempt": str(a), "account": account, "count": n} for (a, account), n in self.counts.items()]
        new = self._file.with_name(f".{FILE}.new")
        with suppress(OSError):
            new.write_text(json.dumps({"last_s": int(time.time()), "refused": rows}), encoding="utf-8")
            new.replace(self._file)


def read_counts(folder: Path) -> Refusals:
    """Return what a broker has counted in its folder so far; nothing where it has not, or the file cannot be read."""
    counts: Refusals = Counter()
    with suppress(OSError, ValueError, KeyError, TypeError):
        held: Mapping[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        for row in held["refused"]:
            counts[Attempt(row["attempt"]), str(row["account"])] += int(row["count"])
    return counts


def _whole(taken: bytes) -> tuple[bytes, bytes]:
    """Cut behind the last whole line."""
    end = taken.rfind(b"\n") + 1
    if not end and len(taken) > MAX_LINE_BYTES:
        end = len(taken)
    return taken[:end], taken[end:]
