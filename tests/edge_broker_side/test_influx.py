"""The metrics server: real ones of 1.x and of the 2.x write path, and what an answer other than success says to do."""

from __future__ import annotations

import email.utils
import gzip
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from edge_broker_side.broker import free_port
from edge_broker_side.influx import (
    Denied,
    InfluxError,
    NoDatabase,
    PointsRefused,
    Server,
    ServerV2,
    TooLarge,
    Unavailable,
    open_server,
)
from edge_broker_side.influx_settings import InfluxSettings
from tests.edge_broker_side.stub_server import stub_server
from tests.servers import database_of, exported
from tools.metrics_servers import MetricsServer
from wire.settings import SettingsError, settings_from

SECRET = "s3cret-of-nobody"
Api = Literal["auto", "v1", "v2"]
BOTH: tuple[Api, Api] = ("v1", "v2")


@contextmanager
def opened(settings: InfluxSettings) -> Iterator[Server]:
    server = open_server(settings)
    try:
        yield server
    finally:
        server.close()


def test_lines_written_to_1x_are_found_by_influxql(influxd: MetricsServer) -> None:
    with database_of(influxd, "found") as server:
        assert type(server) is Server
        server.write(["m,d=a v=1.5,n=7i 1700000000000000001", "m,d=b v=2.5 1700000000000000002"])
        series = server.query("SELECT v, n FROM m GROUP BY d; SELECT count(v) FROM m")
    assert [(one.name, one.statement, dict(one.tags)) for one in series] == [
        ("m", 0, {"d": "a"}),
        ("m", 0, {"d": "b"}),
        ("m", 1, {}),
    ]
    assert series[0].columns == ("time", "v", "n")
    assert [list(row) for row in series[0].rows] == [[1700000000000000001, 1.5, 7]]
    assert series[2].rows[0][1] == 2


def test_the_same_line_twice_is_one_point(influxd: MetricsServer) -> None:
    with database_of(influxd, "twice") as server:
        for _ in range(2):
            server.write(["m,d=a v=1 1700000000000000001"])
        assert server.query("SELECT count(v) FROM m")[0].rows[0][1] == 1


def test_the_2x_path_writes_to_a_real_victoria(victoria: MetricsServer) -> None:
    with opened(InfluxSettings(victoria.url)) as server:
        assert type(server) is ServerV2, "detected by what /ping says"
        server.write([f"detected,d=a v={n} {1_700_000_000_000_000_000 + n * 1_000_000}" for n in range(500)])
    assert [value for _, value in exported(victoria, "detected_v")] == list(range(500))


def test_a_database_that_is_not_there_says_how_to_make_it(influxd: MetricsServer) -> None:
    with opened(InfluxSettings(influxd.url, "nowhere")) as server:
        with pytest.raises(NoDatabase, match='CREATE DATABASE "nowhere"'):
            server.write(["m v=1 1"])
        with pytest.raises(NoDatabase, match="influx bucket create"):
            server.query("SELECT v FROM m")
        with pytest.raises(InfluxError, match="is there a database nowhere"):
            server.query("SELECT v FROM m; SELECT v FROM n")


def test_a_name_of_a_database_cannot_break_out(influxd: MetricsServer) -> None:
    name = 'odd"; DROP DATABASE "found'
    with database_of(influxd, name) as server:
        server.write(["m v=1 1"])
        assert [name] in server.query("SHOW DATABASES")[0].rows


def test_a_field_whose_type_changed_is_refused_with_the_servers_words(influxd: MetricsServer) -> None:
    with database_of(influxd, "types") as server:
        server.write(["m v=1.5 1"])
        with pytest.raises(PointsRefused, match=r"^field type conflict: .* type string, already exists as type float$"):
            server.write(['m v="text" 2'])
        with pytest.raises(PointsRefused, match=r"^unable to parse: invalid boolean$"):
            server.write(["m v=2 3", "m,with=its\\ own\\ 'words' v=inf 4"])
        assert server.query("SELECT count(v) FROM m")[0].rows[0][1] == 2, "the good point of the batch is there"


def test_wrong_and_right_passwords(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    token.write_text("wrong-one\n")
    with MetricsServer("influxd", tmp_path / "influxd", auth=True) as process:
        admin = f"CREATE USER admin WITH PASSWORD '{SECRET}' WITH ALL PRIVILEGES"
        with opened(InfluxSettings(process.url)) as server:
            server.query(admin)  # the first one may be made by anybody
        settings = InfluxSettings(process.url, username="admin", token_file=str(token), create_database=True)
        with pytest.raises(Denied, match=f"user or password .*{token}") as refused:
            open_server(settings)
        token.write_text(f"{SECRET}\n")
        with opened(settings) as server:
            server.write(["m v=1 1"])
            assert server.query("SELECT count(v) FROM m")[0].rows[0][1] == 1
            token.write_text("wrong again")
            with pytest.raises(Denied):
                server.write(["m v=1 1"])
        with pytest.raises(Denied, match="token"):
            Server(InfluxSettings(process.url)).write(["m v=1 1"])
    for text in (str(refused.value), repr(settings), caplog.text.replace(admin, "")):
        assert SECRET not in text and "wrong-one" not in text


def test_the_token_of_2x_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OUR_TOKEN", SECRET)
    with stub_server(status=401, body=b'{"code":"unauthorized","message":"unauthorized access"}') as stub:
        settings = InfluxSettings(stub.url, api="v2", org="plant", token_env="OUR_TOKEN")
        with opened(settings) as server:
            with pytest.raises(Denied, match="OUR_TOKEN") as by_client:
                server.write(["m v=1 1"])
            with pytest.raises(Denied) as by_query:
                server.query("SHOW DATABASES")
    assert [asked["Authorization"] for asked in stub.asked] == [f"Token {SECRET}"] * 2
    for text in (str(by_client.value), repr(by_client.value), str(by_query.value), repr(settings), caplog.text):
        assert SECRET not in text


def test_a_token_that_cannot_be_one_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITFLEET_INFLUX_TOKEN", f"{SECRET}\nof two lines")
    for api in BOTH:
        with (
            stub_server() as stub,
            pytest.raises(InfluxError, match="SPLITFLEET_INFLUX_TOKEN") as refused,
            opened(InfluxSettings(stub.url, api=api)) as server,
        ):
            server.write(["m v=1 1"])
        assert SECRET not in str(refused.value) and not stub.paths


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with stub_server() as stub, pytest.raises(InfluxError, match="no-such-file"):
        open_server(InfluxSettings(stub.url, token_file=str(tmp_path / "no-such-file")))


@pytest.mark.parametrize("api", BOTH)
@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (400, b'{"error":"partial write: points beyond retention policy dropped=3"}', PointsRefused, "^points beyond"),
        (422, b'{"code":"unprocessable entity","message":"failure writing points"}', PointsRefused, "failure writing"),
        (400, b"Client sent an HTTP request to an HTTPS server.", InfluxError, "http or https"),
        (400, b"<html>The plain HTTP request was sent to HTTPS port</html>", InfluxError, "http or https"),
        (400, b'{"error":"db name contains invalid character"}', InfluxError, "db name"),
        (413, b"<html>Request Entity Too Large</html>", TooLarge, "too large"),
        (403, b'{"message":"forbidden"}', Denied, "forbidden"),
        (404, b'{"code":"not found","message":"bucket \\"splitfleet\\" not found"}', NoDatabase, "create it"),
        (404, b"404 page not found", InfluxError, "is that an InfluxDB"),
        (500, b'{"error":"engine is closed"}', Unavailable, "engine is closed"),
        (502, b"<html>bad gateway</html>", Unavailable, "502"),
        (301, b"", InfluxError, "influx.url"),
    ],
)  # fmt: skip
def test_what_answers_other_than_success_mean(
    api: Api, status: int, body: bytes, error: type[InfluxError], words: str
) -> None:
    with (
        stub_server(status=status, body=body) as stub,
        opened(InfluxSettings(stub.url, api=api)) as server,
        pytest.raises(error, match=words) as raised,
    ):
        server.write(["m v=1 1"])
    assert type(raised.value) is error


@pytest.mark.parametrize("api", BOTH)
def test_retry_after_in_seconds_as_a_date_and_as_nonsense(api: Api) -> None:
    found = []
    with stub_server(status=429) as stub, opened(InfluxSettings(stub.url, api=api)) as server:
        for text in ("7", email.utils.formatdate(time.time() + 100, usegmt=True), "soon", "1e9"):
            stub.headers = {"Retry-After": text}
            with pytest.raises(Unavailable) as raised:
                server.write(["m v=1 1"])
            found.append(raised.value.retry_after_s)
    assert found[0] == 7.0 and found[1] is not None and 90 < found[1] <= 100 and found[2] is None
    assert found[3] == 3600.0, "no server sends us away for longer than an hour"


def test_a_mistaken_answer_to_ping_condemns_no_point() -> None:
    for status in (400, 413, 422):
        with stub_server(status=status) as stub, pytest.raises(InfluxError) as raised:
            open_server(InfluxSettings(stub.url))
        assert type(raised.value) is InfluxError


def test_an_organisation_that_is_missing_condemns_no_point() -> None:
    body = b'{"code":"invalid","message":"please provide either orgID or org"}'
    with (
        stub_server(status=400, body=body) as stub,
        opened(InfluxSettings(stub.url, api="v2")) as server,
        pytest.raises(InfluxError, match=r"influx\.org"),
    ):
        server.write(["m v=1 1"])


@pytest.mark.parametrize("api", ["auto", *BOTH])
def test_nobody_there(api: Api) -> None:
    where = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match="is the server up"), opened(InfluxSettings(where, api=api)) as server:
        server.write(["m v=1 1"])


def test_something_that_is_no_influxdb() -> None:
    with (
        stub_server(status=200, body=b"<html>a router</html>") as stub,
        opened(InfluxSettings(stub.url, api="v1")) as server,
        pytest.raises(InfluxError, match=r"influx\.url"),
    ):
        server.query("SHOW DATABASES")


@pytest.mark.parametrize(
    ("version", "kind"), [("1.6.7~rc0", Server), ("v1.8.10", Server), ("v2.7.10", ServerV2), ("3.1.0", ServerV2)]
)
def test_the_version_that_a_server_tells_decides_how_it_is_written_to(version: str, kind: type) -> None:
    with (
        stub_server(headers={"X-Influxdb-Version": version}) as stub,
        opened(InfluxSettings(stub.url, org="plant")) as server,
    ):
        server.write(["m v=1 1"])
    assert type(server) is kind
    assert stub.paths[0] == "/ping"
    assert stub.paths[1].startswith("/write?" if kind is Server else "/api/v2/write?")
    assert stub.asked[1]["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(
    "raw",
    [
        {"url": "http://admin:pw@db:8086"},
        {"url": "db:8086"},
        {"url": "http://db", "database": ""},
        {"url": "http://db", "timeout_s": 0.0},
        {"url": "http://db", "batch_points": 0},
        {"url": "http://db", "backoff_min_s": 9.0, "backoff_max_s": 1.0},
        {"url": "http://db", "api": "v3"},
        {"url": "http://db", "token": SECRET},
    ],
)
def test_settings_that_cannot_be(raw: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as refused:
        settings_from(InfluxSettings, raw, "recorder.toml")
    assert "recorder.toml" in str(refused.value) and "admin:pw" not in str(refused.value)


def test_a_batch_is_small_on_the_wire() -> None:
    lines = [f"inference,site=plant,device=cam-{n % 9} frame={n}i,latency_ms={n / 7} {n}" for n in range(1000)]
    whole = "\n".join(lines).encode()
    assert len(gzip.compress(whole, 1)) < len(whole) / 3
