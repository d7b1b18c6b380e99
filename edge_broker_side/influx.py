"""The metrics server: InfluxDB 1.x, 2.x or 3.x behind one interface of writing lines and asking InfluxQL."""

from __future__ import annotations

import email.utils
import gzip
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from edge_broker_side.errors import EdgeError
from edge_broker_side.influx_settings import InfluxSettings

GZIP_LEVEL = 1
"""A fifth of the processor time of level 9 for lines a sixth larger."""
MAX_WORDS = 300
"""Characters of a server's own words that are kept: it may repeat a whole line."""
MAX_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer."""

    tags: Mapping[str, str]
    columns: tuple[str, ...]
    """``time`` (integer, nanoseconds since 1970) is the first."""
    rows: Sequence[Sequence[Any]]
    name: str = ""
    """The measurement."""
    statement: int = 0
    """Which of several statements it answers."""


class InfluxError(EdgeError):
    """The server cannot be used as it is set up; the message says what to do."""


class Unavailable(InfluxError):
    """It does not answer, or asks to be left alone for a while; later it may."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Denied(InfluxError):
    """Token, user or password is wrong, or may not do this."""


class NoDatabase(InfluxError):
    """The database or bucket does not exist."""


class PointsRefused(InfluxError):
    """Something is wrong with one or more of the points; on 1.x and 3.x the others may have been written."""


class TooLarge(InfluxError):
    """The server takes smaller requests only."""


class Server:
    """A server that is written to through ``/write``. Used by one thread."""

    def __init__(self, settings: InfluxSettings) -> None:
        self.settings = settings
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(total=settings.timeout_s), ca_certs=settings.ca
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def write(self, lines: Sequence[str]) -> None:
        """Write lines of line protocol with stamps in nanoseconds; the server has all when it returns.

        Raises an ``InfluxError``; what became of the lines is then unknown, and writing them again does no harm.
        """
        where = f"/write?{urlencode({'db': self.settings.database, 'precision': 'ns'})}"
        body = gzip.compress(_body(lines), GZIP_LEVEL)
        self._ask("POST", where, body, {"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"})

    def query(self, influxql: str) -> list[Series]:
        """Return the answer to one or more statements, stamps in nanoseconds; raises an ``InfluxError``."""
        where = f"/query?{urlencode({'db': self.settings.database, 'q': influxql, 'epoch': 'ns'})}"
        return _series(self.settings, self._ask("GET", where))

    def create_database(self) -> None:
        """Make the database of a 1.x server; one that is there stays as it is."""
        name = self.settings.database.replace("\\", "\\\\").replace('"', '\\"')
        statement = f'CREATE DATABASE "{name}"'
        _series(self.settings, self._ask("POST", f"/query?{urlencode({'q': statement})}"))

    def version(self) -> str:
        """Return what the server says of its version, '' where it says nothing."""
        return str(self._ask("GET", "/ping").headers.get("X-Influxdb-Version", ""))

    def _ask(
        self, method: str, where: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        with _translated(self.settings):
            answer = self._pool.request(
                method,
                self.settings.url.rstrip("/") + where,
                body=body,
                headers={**_credentials(self.settings), **(headers or {})},
            )
        if not 200 <= answer.status < 300:
            raise _refusal(self.settings, where.partition("?")[0], answer.status, answer.data, answer.headers)
        return answer


class ServerV2(Server):
    """A server that is written to through ``/api/v2/write``, by ``influxdb-client``."""

    def __init__(self, settings: InfluxSettings) -> None:
        super().__init__(settings)
        from influxdb_client.client.influxdb_client import InfluxDBClient
        from influxdb_client.service.write_service import WriteService

        self._client = InfluxDBClient(
            settings.url, _secret(settings), timeout=int(settings.timeout_s * 1000), org=settings.org, retries=False,
            ssl_ca_cert=settings.ca,
        )  # fmt: skip
        self._service = WriteService(self._client.api_client)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()  # type: ignore[no-untyped-call]
        super().close()

    def write(self, lines: Sequence[str]) -> None:
        """As ``Server.write``."""
        from influxdb_client.rest import ApiException

        try:
            with _translated(self.settings):
                # What the client's WriteApi calls, which would compress at level 9: five times the processor time.
                self._service.post_write(  # type: ignore[no-untyped-call]
                    self.settings.org, self.settings.database, gzip.compress(_body(lines), GZIP_LEVEL), precision="ns",
                    content_encoding="gzip", content_type="text/plain; charset=utf-8",
                )  # fmt: skip
        except ApiException as error:
            body = error.body.encode() if isinstance(error.body, str) else error.body or str(error.reason).encode()
            raise _refusal(self.settings, "/api/v2/write", error.status or 0, body, error.headers or {}) from error


def open_server(settings: InfluxSettings) -> Server:
    """Return the server that is set; with api ``auto`` it is asked which it is. Raises an ``InfluxError``."""
    server = Server(settings)
    try:
        if settings.api == "v2" or (settings.api == "auto" and not server.version().lstrip("v").startswith("1.")):
            server.close()
            return ServerV2(settings)
        if settings.create_database:
            server.create_database()
    except BaseException:
        server.close()
        raise
    return server


def _body(lines: Sequence[str]) -> bytes:
    return "\n".join(lines).encode("utf-8", "replace")


def _secret(settings: InfluxSettings) -> str:
    """Read the token or password now, so that a new one needs no restart; '' where there is none."""
    where = settings.token_file or settings.token_env
    if settings.token_file is not None:
        try:
            secret = Path(settings.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InfluxError(f"cannot read the token file {where}: {type(error).__name__}") from error
    else:
        secret = os.environ.get(settings.token_env, "").strip()
    if not (secret.isascii() and secret.isprintable()):  # the HTTP library would repeat it in its complaint
        raise InfluxError(f"what {where} holds is not a token: it has characters that none has")
    return secret


def _credentials(settings: InfluxSettings) -> dict[str, str]:
    secret = _secret(settings)
    if settings.username is not None:
        return dict(urllib3.make_headers(basic_auth=f"{settings.username}:{secret}"))
    return {"Authorization": f"Token {secret}"} if secret else {}


@contextmanager
def _translated(settings: InfluxSettings) -> Iterator[None]:
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        if isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(
            error, urllib3.exceptions.NewConnectionError
        ):
            why = f"nothing within {settings.timeout_s:g} s"
        elif isinstance(error, urllib3.exceptions.ProtocolError):
            why = "the connection broke off"
        else:
            why = str(error).rpartition(": ")[2]
        raise Unavailable(f"no answer from {settings.url}: {why}; is the server up, and influx.url right?") from error


def _refusal(settings: InfluxSettings, path: str, status: int, body: bytes, headers: Mapping[str, str]) -> InfluxError:
    """Return the error that an answer other than success means."""
    told, url, name = _words(body), settings.url, settings.database
    words = told[:MAX_WORDS]
    if status in (401, 403):
        source = f"the file {settings.token_file}" if settings.token_file else f"the variable {settings.token_env}"
        what = "user or password" if settings.username is not None else "token"
        return Denied(f"{url} does not accept our {what} ({status}, {words}); it is read from {source}")
    if status == 404 and "not found" in words and "page" not in words:
        v1, v2 = f'CREATE DATABASE "{name}"', f"influx bucket create --name {name} --org {settings.org or 'ORG'}"
        how = {"/write": v1, "/api/v2/write": v2}.get(path, f"{v1} (1.x), or {v2} (2.x)")
        return NoDatabase(f"{url} says: {words}; create it: {how}")
    if status == 404:
        other = "v1" if "v2" in path else "v2"
        return InfluxError(f'{url} has no {path}: is that an InfluxDB? perhaps influx.api = "{other}" is right')
    if status == 413 and path.endswith("/write"):
        return TooLarge(f"{url} finds the request too large: {words}")
    if status == 400 and path == "/api/v2/write" and "orgID" in words:
        return InfluxError(f"{url} asks for an organisation ({words}): set influx.org")
    if status in (400, 422) and path.endswith("/write"):
        # Only an InfluxDB's own words may condemn a point: a proxy, or one that wants TLS, knows nothing of points.
        if _is_json(body) and not re.match(r"(db|database) name", told):
            return PointsRefused(_reason(told))
        return InfluxError(f"{url} answers {path} with {status}: {words}; is influx.url right, http or https?")
    if status in (429, *range(500, 600)):
        return Unavailable(f"{url} cannot take points now ({status}, {words})", _retry_after_s(headers))
    return InfluxError(f"{url} answers {path} with {status}: {words}; is influx.url right?")


def _words(body: bytes) -> str:
    """Return what a server says, from its JSON where it is JSON."""
    text = body.decode("utf-8", "replace").strip()
    try:
        told = json.loads(text)
        text = str(told.get("error") or told.get("message") or text)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split()) or "without a word"


def _is_json(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _reason(told: str) -> str:
    """Leave out what makes each refusal unlike the next: the line itself, and how many were dropped."""
    cause = re.sub(r"unable to parse '.*': ", "unable to parse: ", told.removeprefix("partial write: "))
    return re.sub(r" dropped=\d+$", "", cause)[:MAX_WORDS]


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3): seconds or a date."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _series(settings: InfluxSettings, answer: urllib3.BaseHTTPResponse) -> list[Series]:
    """Read the answer to a query; an error of one statement is the error of all."""
    try:
        results = json.loads(answer.data)["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise InfluxError(f"{settings.url} does not answer /query as InfluxDB does: is influx.url right?") from error
    refused = [str(result["error"]) for result in results if "error" in result]
    if refused:
        raise _refused_query(settings, next((words for words in refused if words != "not executed"), refused[0]))
    found = []
    for result in results:
        found += [
            Series(
                one.get("tags", {}),
                tuple(one["columns"]),
                one.get("values", []),
                one.get("name", ""),
                int(result.get("statement_id", 0)),
            )
            for one in result.get("series", [])
        ]
    return found


def _refused_query(settings: InfluxSettings, words: str) -> InfluxError:
    if "not found" in words:
        return _refusal(settings, "/query", 404, words.encode(), {})
    if words == "not executed":  # all that 1.6 says of several statements when the first one failed
        words = f"the first of several statements failed; is there a database {settings.database}?"
    return InfluxError(f"{settings.url} refused a query: {words[:MAX_WORDS]}")
