"""The files in docs/examples: run, or held against what they read, so that none of them goes stale."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import select
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import topic_matches_sub
from prometheus_client.core import CounterMetricFamily

from edge_broker_side.broker import Broker
from edge_broker_side.influx import Server
from edge_broker_side.mirror import MirrorSettings, MirrorState
from edge_broker_side.points import (
    MEASUREMENTS,
    Kind,
    Point,
    decision_point,
    inference_points,
    policy_point,
    telemetry_point,
    to_cell,
    to_line,
    worker_point,
)
from tests.edge_broker_side.peers import Peer
from tests.servers import database_of
from tests.wire.examples import EXAMPLES
from tools.metrics_servers import MetricsServer
from wire import channels
from wire.channels import CHANNELS, Address, json_topic
from wire.exposition import families
from wire.json_form import to_json
from wire.settings import load_settings

EXAMPLES_FOLDER = Path(__file__).parent.parent / "docs" / "examples"
PATIENCE_S = 30.0
SITE, DEVICE = "plant", "cam-1"

# -- the subscriber of thirty lines ------------------------------------------------------------------------------------


def test_the_subscriber_prints_a_result_and_knows_nothing_of_us(mosquitto: Broker, site: str) -> None:
    path = EXAMPLES_FOLDER / "subscribe.py"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported == {"sys", "msgpack", "paho"}
    command = [sys.executable, str(path), site, "127.0.0.1", str(mosquitto.port)]
    with Peer(mosquitto, site) as peer:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = ""
            deadline = time.monotonic() + PATIENCE_S
            while not line:  # until it has subscribed
                assert time.monotonic() < deadline and process.poll() is None
                peer.say(channels.RESULT, EXAMPLES["result"])
                if select.select([process.stdout], [], [], 0.1)[0]:
                    line = process.stdout.readline()
        finally:
            process.kill()
            process.communicate()
    label, score = 3, 0.875
    assert line.split() == [
        "cam", "1001", "resnet-light/block2/q8", "ok", "edge", "worker-1", str(label), str(score)
    ]  # fmt: skip


# -- the page that shows them ------------------------------------------------------------------------------------------


def _shown(language: str) -> list[str]:
    page = (EXAMPLES_FOLDER.parent / "subscribing.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_settings_on_the_page_are_those_of_a_mirror(tmp_path: Path) -> None:
    whole, prometheus = _shown("toml")
    for number, text in enumerate((whole, f'site = "plant-1"\n{prometheus}')):
        path = tmp_path / f"{number}.toml"
        path.write_text(text, encoding="utf-8")
        assert load_settings(MirrorSettings, path).prometheus is not None


def test_the_message_on_the_page_is_one_that_the_mirror_says() -> None:
    (text,) = _shown("json")
    shown = json.loads(text)
    assert list(shown) == list(_named("result"))
    assert {type(value) for value in shown.values()} <= {str, int, float}


def test_the_alerts_on_the_page_ask_for_metrics_that_are_shown(tmp_path: Path) -> None:
    page = (EXAMPLES_FOLDER.parent / "subscribing.md").read_text(encoding="utf-8")
    expressions = [one for one in re.findall(r"^\| `([^`]+)`", page, re.MULTILINE) if "splitfleet_" in one]
    assert len(expressions) == 5
    for expression in expressions:
        assert set(re.findall(r"splitfleet_\w+", expression)) <= _metrics().keys()
    assert _promtool(tmp_path, expressions) == ""


# -- Telegraf ----------------------------------------------------------------------------------------------------------


def test_telegraf_reads_what_the_mirror_says() -> None:
    document = tomllib.loads((EXAMPLES_FOLDER / "telegraf.conf").read_text(encoding="utf-8"))
    inputs = document["inputs"]["mqtt_consumer"]
    seen = set()
    for one in inputs:
        (topic,) = one["topics"]
        (channel,) = [
            channel
            for channel in CHANNELS.values()
            if channel.as_json and topic_matches_sub(topic, json_topic(SITE, DEVICE, channel))
        ]
        seen.add(channel.name)
        message = _named(channel.name)
        assert one["data_format"] == "json" and one["qos"] == channel.qos
        for key in [*one["tag_keys"], *one.get("json_string_fields", [])]:
            assert isinstance(message[key], str), key
        assert isinstance(message[one["json_time_key"]], int) and one["json_time_format"] == "unix_ms"
        texts = {key for key, value in message.items() if isinstance(value, str)}
        told = {*one["tag_keys"], *one.get("json_string_fields", []), "plan", "channel"}
        assert texts <= told, f"{texts - told} would be lost"
    assert seen == {"result", "telemetry"}


def _named(channel: str) -> dict[str, Any]:
    labels = {"resnet-light": ("boot", "bag", "coat", "dress")}
    return to_json(Address(SITE, DEVICE, CHANNELS[channel]), EXAMPLES[channel], 1, labels)


# -- Grafana -----------------------------------------------------------------------------------------------------------

FIELDS = {
    measurement.name: {
        kind: {column.name for column in measurement.columns if (column.kind is Kind.TAG) == (kind == "tags")}
        for kind in ("tags", "fields")
    }
    for measurement in MEASUREMENTS
}
MAPS = {
    measurement.name: {column.name for column in measurement.columns if column.kind in (Kind.COUNTS, Kind.NUMBERS)}
    for measurement in MEASUREMENTS
}


def _dashboard(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((EXAMPLES_FOLDER / name).read_text(encoding="utf-8"))
    return document


def _queries(dashboard: dict[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """Yield each panel's title with each of its queries."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target[key]


INFLUX = _dashboard("grafana-influxdb.json")
PROMETHEUS = _dashboard("grafana-prometheus.json")
INFLUXQL = list(_queries(INFLUX, "query")) + [
    (f"variable {one['name']}", one["query"]) for one in INFLUX["templating"]["list"] if one["type"] == "query"
]
PROMQL = list(_queries(PROMETHEUS, "expr"))


@pytest.mark.parametrize("dashboard", [INFLUX, PROMETHEUS], ids=["influxdb", "prometheus"])
def test_a_dashboard_asks_the_data_source_that_its_reader_chooses(dashboard: dict[str, Any]) -> None:
    (source,) = [one for one in dashboard["templating"]["list"] if one["type"] == "datasource"]
    assert source["name"] == "datasource"
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    for panel in panels:
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize(("title", "query"), INFLUXQL, ids=[title for title, _ in INFLUXQL])
def test_every_influxql_query_names_what_is_written(title: str, query: str) -> None:
    (measurement,) = set(re.findall(r'FROM "(\w+)"', query))
    columns, tags = FIELDS[measurement]["fields"], FIELDS[measurement]["tags"]
    aliases = set(re.findall(r'AS "([^"]+)"', query))
    if query.startswith("SHOW"):
        named = set(re.findall(r'KEY = "(\w+)"', query)) | set(re.findall(r'WHERE "(\w+)"', query))
        assert named <= tags
        return
    for group in re.findall(r"GROUP BY ([^()]*(?:\([^)]*\))?[^()]*)", query):
        assert set(re.findall(r'"(\w+)"', group)) <= tags, group
    used = set(re.findall(r'"([^"]+)"', query)) - aliases - {measurement}
    assert used <= columns | tags
    for prefix in re.findall(r"/\^(\w+)_/", query):
        assert prefix in MAPS[measurement]


def _points() -> Iterator[Point]:
    """One point of every measurement, of the messages that tests know; two have none that the recorder makes of one."""
    yield from inference_points(SITE, DEVICE, EXAMPLES["outcomes"])
    yield telemetry_point(SITE, DEVICE, EXAMPLES["telemetry"])
    yield decision_point(SITE, DEVICE, EXAMPLES["decision"])
    yield worker_point(SITE, "edge-1", EXAMPLES["worker-load"])
    yield policy_point(SITE, "policy", EXAMPLES["policy-state"])
    by_name = {measurement.name: measurement for measurement in MEASUREMENTS}
    ledger = {"site": SITE, "device": DEVICE, "captured": 1003, "counted": 1001, "gap": 2, "folded": {"device": 250}}
    yield Point(by_name["ledger"], EXAMPLES["telemetry"].at_ms, ledger)
    state = dataclasses.asdict(EXAMPLES["recorder-state"]) | {"site": SITE, "recorder": "recorder"}
    state["sent_ms"] = state["at_ms"]
    yield Point(by_name["recorder"], state["at_ms"], state)


@pytest.fixture(scope="module")
def filled(influxd: MetricsServer) -> Iterator[Server]:
    """A database with one point of every kind that the dashboards ask for, written as the recorder's store writes."""
    with database_of(influxd, "grafana") as server:
        lines = []
        for number, point in enumerate(_points(), 1):
            cells = [to_cell(column, point.values.get(column.name)) for column in point.measurement.columns]
            lines.append(to_line(point.measurement, number, point.at_ms, cells))
        server.write(lines)
        yield server


@pytest.mark.parametrize(("title", "query"), INFLUXQL, ids=[title for title, _ in INFLUXQL])
def test_every_influxql_query_gives_rows_on_a_real_server(filled: Server, title: str, query: str) -> None:
    at_ms = EXAMPLES["telemetry"].at_ms
    for variable, value in {
        "$timeFilter": f"time >= {at_ms - 1000}ms AND time <= {at_ms + 1000}ms",
        "$__interval": "1s",
        "/^$site$/": f"/^{SITE}$/",
        "/^$device$/": f"/^({DEVICE}|cam-2)$/",
    }.items():
        query = query.replace(variable, value)
    assert "$" not in re.sub(r"/[^/]*\$/", "", query), "a variable is left"
    series = filled.query(query)
    values = [value for one in series for row in one.rows for value in row[1:]]
    assert any(value is not None for value in values), query


def _metrics() -> dict[str, set[str]]:
    """Return each metric a process shows, with its labels."""
    mirror = MirrorState(devices=1, owed=0, counters={"mirrored_state": 1})
    shown = {"worker": "worker-load", "policy": "policy-state", "recorder": "recorder-state"}
    found: dict[str, set[str]] = {}
    for kind, message in [*((kind, EXAMPLES[name]) for kind, name in shown.items()), ("mirror", mirror)]:
        for family in families(f"splitfleet_{kind}_", {"site": SITE, "name": kind}, message):
            name = f"{family.name}_total" if isinstance(family, CounterMetricFamily) else family.name
            found[name] = set(family.samples[0].labels)
    return found


@pytest.mark.parametrize(("title", "query"), PROMQL, ids=[title for title, _ in PROMQL])
def test_every_promql_query_names_what_is_shown(title: str, query: str) -> None:
    metrics = _metrics()
    named = re.findall(r"splitfleet_\w+", query)
    assert named and set(named) <= metrics.keys()
    for name in named:
        rated = f"rate({name}" in query
        assert rated == name.endswith("_total"), "counters are read by their rate, gauges are not"


def test_legends_name_labels_that_are_there() -> None:
    metrics = _metrics()
    for panel in PROMETHEUS["panels"]:
        for target in panel.get("targets", []):
            labels = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
            for name in re.findall(r"splitfleet_\w+", target["expr"]):
                assert labels <= metrics[name], f"{panel['title']}: {labels}"


def test_promtool_takes_every_query(tmp_path: Path) -> None:
    queries = [query.replace("$__rate_interval", "1m").replace("$site", SITE) for _, query in PROMQL]
    assert _promtool(tmp_path, queries) == ""


def test_promtool_would_complain(tmp_path: Path) -> None:
    assert "could not parse expression" in _promtool(tmp_path, ["rate(up[5m]) >"])


def _promtool(folder: Path, expressions: list[str]) -> str:
    """Return what is wrong with these expressions."""
    rules = [{"record": f"rule_{number}", "expr": one} for number, one in enumerate(expressions)]
    path = folder / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))  # JSON is YAML
    told = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert told.returncode or f"{len(expressions)} rules found" in told.stdout
    return told.stderr if told.returncode else ""


def test_the_prometheus_file_is_one() -> None:
    path = EXAMPLES_FOLDER / "prometheus.yml"
    told = subprocess.run(["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
