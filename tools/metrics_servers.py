"""Private metrics servers on free ports with folders of their own, killed and started again at will: tests, benches."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from edge_broker_side.broker import free_port, tether
from edge_broker_side.errors import EdgeError
from edge_broker_side.influx import Server, Unavailable
from edge_broker_side.influx_settings import InfluxSettings

START_TIMEOUT_S = 30.0
_INFLUXD = """\
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  auth-enabled = {auth}
  log-enabled = false
"""


class MetricsServerError(EdgeError):
    """The server is not installed, or does not come up."""


class MetricsServer:
    """A server of one kind, ``influxd`` (1.x) or ``victoria-metrics``; it is up until ``kill`` or ``stop``."""

    def __init__(self, kind: str, folder: Path, *, auth: bool = False) -> None:
        """Start it; raises ``MetricsServerError``. With ``auth``, influxd wants a user and a password."""
        self.kind = kind
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self._auth = auth
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, "it is not running"
        return self._process.pid

    def start(self) -> None:
        """Start it where it was, with what it had, and wait until it answers."""
        log = self.folder / "log"
        with log.open("ab") as output:
            command = [*tether(), *self._command()]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                words = log.read_text(encoding="utf-8", errors="replace")[-500:]
                raise MetricsServerError(f"{self.kind} does not come up: {words}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(hard=True)

    def stop(self) -> None:
        """Ask it to end, and wait; victoria-metrics then writes what it has only in memory."""
        self._end(hard=False)

    def _end(self, *, hard: bool) -> None:
        if self._process is not None:
            if hard:
                self._process.kill()
            else:
                self._process.terminate()
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def _command(self) -> list[str]:
        if self.kind == "influxd":
            config = self.folder / "influxd.conf"
            text = _INFLUXD.format(folder=self.folder.absolute(), port=self.port, auth=str(self._auth).lower())
            config.write_text(text, encoding="utf-8")
            return [_binary("influxd", "influxdb"), "-config", str(config)]
        return [
            _binary("victoria-metrics", "victoria-metrics"),
            f"-storageDataPath={self.folder / 'data'}",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-retentionPeriod=100y",
            "-loggerLevel=WARN",
        ]

    def _answers(self) -> bool:
        server = Server(InfluxSettings(self.url, timeout_s=2.0))
        try:
            server.version()
        except Unavailable:
            return False
        finally:
            server.close()
        return True


def _binary(name: str, package: str) -> str:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which(name, path=path)
    if found is None:
        raise MetricsServerError(f"{name} is not installed: apt-get install {package}")
    return found
