"""A site as its owner makes it: from `site init` to frames that cross over mutual TLS."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_broker_side.broker import BrokerSettings, free_port, start_broker
from edge_broker_side.identity.authority import facts
from edge_broker_side.identity.register import SiteRegister
from edge_broker_side.identity.site_files import SiteFiles
from edge_broker_side.recorder import RecorderSettings
from edge_broker_side.rollout.server import RolloutSettings
from edge_broker_side.worker import WorkerSettings
from policy.settings import PolicySettings
from tests.command_line import Home
from tools.operator_link import OperatorSettings
from tools.site_processes import plan
from wire.settings import load_settings


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path / "home", capsys, monkeypatch)


def test_a_site_is_made_with_every_settings_file(home: Home) -> None:
    made = home.told("site", "init", "plant-1", "--host", "edge.example", "--host", "127.0.0.1")
    kinds: dict[str, type[Any]] = {
        "broker": BrokerSettings,
        "edge-1": WorkerSettings,
        "recorder": RecorderSettings,
        "policy": PolicySettings,
        "rollout": RolloutSettings,
        "operator": OperatorSettings,
        "viewer": OperatorSettings,
    }
    assert {Path(path).stem for path in made["files"]} == set(kinds)
    for path in map(Path, made["files"]):
        settings = load_settings(kinds[path.stem], path)
        tls = getattr(settings, "tls", None) or settings.link.tls
        assert all(Path(file).is_file() for file in (tls.certificate, tls.key))
    accounts = {row["account"]: row for row in home.told("site", "status")["accounts"]}
    assert accounts["edge-1"]["role"] == "worker" and accounts["authority"]["days_left"] > 7000
    again = home.run("site", "init", "plant-1")
    assert again.returncode == 2 and "holds a site already" in again.stderr


def test_devices_come_and_go(home: Home) -> None:
    home.told("site", "init", "plant-1")
    added = home.told("devices", "add", "cam-01", "--tag", "line-3")
    assert Path(added["key"]).is_file() and added["tags"] == ["line-3"]
    home.told("devices", "revoke", "cam-01")
    revoked = {row["account"]: row["revoked"] for row in home.told("site", "status", "plant-1")["accounts"]}
    assert revoked["cam-01"] and not revoked["viewer"]
    refused = home.run("devices", "revoke", "nobody")
    assert refused.returncode == 2 and "cam-01" in refused.stderr and "Traceback" not in refused.stderr


def test_a_plain_site_is_marked_everywhere_and_stays_on_this_machine(home: Home) -> None:
    made = home.told("site", "init", "shed", "--plain")
    assert made["mode"] == "plain"
    for path in map(Path, made["files"]):
        assert path.read_text().startswith("# INSECURE"), path
    settings = load_settings(BrokerSettings, Path(made["folder"]) / "broker.toml")
    assert (settings.host, settings.port, settings.insecure, settings.tls) == ("127.0.0.1", 1883, False, None)
    assert load_settings(WorkerSettings, Path(made["folder"]) / "edge-1.toml").link.tls is None
    assert "key" not in home.told("devices", "add", "cam-01", "--tag", "line-3")
    operator = Path(made["folder"]) / "operator.toml"
    operator.write_text(operator.read_text().replace("[link]", "[link]\nconnect_timeout_s = 0.3"))
    status = home.told("site", "status")
    assert status["mode"] == "plain" and not status["broker_answers"] and "no answer" in status["broker_problem"]
    assert {row["account"]: row["days_left"] for row in status["accounts"]}["cam-01"] is None
    refused = home.run("devices", "revoke", "cam-01")
    assert refused.returncode == 2 and "nobody can be shut out" in refused.stderr
    assert "INSECURE" in home.run("site", "status").stdout


def test_renewed_certificates_replace_and_revoke_those_of_before(home: Home) -> None:
    folder = Path(home.told("site", "init", "plant-1")["folder"])
    home.told("devices", "add", "cam-01")
    held = {path: path.read_bytes() for path in sorted(folder.glob("accounts/*/certificate.pem"))}
    told = home.told("site", "renew", "--host", "edge.example", "--host", "127.0.0.1")
    assert told["hosts"] == ["edge.example", "127.0.0.1"] and {"edge-1", "recorder"} <= told["expires_s"].keys()
    assert [path.parent.name for path, before in held.items() if path.read_bytes() == before] == ["cam-01"]
    assert facts((folder / "accounts/broker/certificate.pem").read_bytes()).hosts == ("edge.example", "127.0.0.1")
    strict = ["openssl", "verify", "-CAfile", str(folder / "authority/ca.pem"), "-crl_check"]
    strict += ["-CRLfile", str(folder / "authority/revoked.pem")]
    (home.path / "old.pem").write_bytes(held[folder / "accounts/edge-1/certificate.pem"])
    for file, holds in ((folder / "accounts/edge-1/certificate.pem", True), (home.path / "old.pem", False)):
        assert (subprocess.run([*strict, str(file)], capture_output=True, check=False).returncode == 0) is holds
    assert home.run("site", "renew", "elsewhere").returncode == 2


def test_what_is_started_follows_from_the_settings_files(home: Home) -> None:
    folder = Path(home.told("site", "init", "plant-1")["folder"])
    register = SiteRegister(folder)

    def planned() -> tuple[list[str], str]:
        made = plan(SiteFiles(folder, register.read()))
        return [process.name for process in made.processes], "\n".join(made.missing)

    names, missing = planned()
    assert names == ["broker", "recorder", "edge-1", "rollout"]
    assert "profile edge" in missing and "device_client.profiling" in missing
    home.told("devices", "add", "edge-2", "--role", "worker")
    assert "edge-2.toml" in planned()[1]
    (folder / "edge-2.toml").write_text((folder / "edge-1.toml").read_text().replace("edge-1", "edge-2"))
    (folder / "data/profiles/edge").mkdir(parents=True)
    for file in ("edge/edge.json", "pi4.json"):
        (folder / "data/profiles" / file).touch()
    assert planned() == (["broker", "recorder", "edge-1", "edge-2", "policy", "rollout"], "")
    (folder / "broker.toml").unlink()
    home.told("devices", "revoke", "edge-2")
    names, missing = planned()
    assert names == ["recorder", "edge-1", "policy", "rollout"] and "no broker is started here" in missing


def test_a_plain_site_goes_beyond_this_machine_only_when_forced(home: Home) -> None:
    refused = home.run("site", "init", "shed", "--plain", "--host", "10.0.0.7")
    assert refused.returncode == 2 and "--insecure" in refused.stderr and not (home.path / "sites").exists()
    assert home.run("site", "init", "shed", "--insecure").returncode == 2
    made = home.told("site", "init", "shed", "--plain", "--insecure", "--host", "10.0.0.7")
    settings = load_settings(BrokerSettings, Path(made["folder"]) / "broker.toml")
    assert (settings.host, settings.insecure) == ("0.0.0.0", True)


def test_a_grown_channel_table_reaches_the_acl_at_the_next_start(home: Home) -> None:
    made = home.told("site", "init", "plant-1", "--port", str(free_port()))
    folder = Path(made["folder"])
    old = (folder / "acl").read_text().splitlines()
    (folder / "acl").write_text("\n".join(line for line in old if not line.endswith("/decision")))
    assert not home.told("site", "status")["acl_up_to_date"]
    with start_broker(load_settings(BrokerSettings, folder / "broker.toml")):
        status = home.told("site", "status")
    assert status["acl_up_to_date"] and status["broker_answers"]
    assert (folder / "acl").read_text().splitlines() == old


def test_a_broken_site_is_told_in_one_line(home: Home) -> None:
    folder = Path(home.told("site", "init", "plant-1", "--plain", "--port", str(free_port()))["folder"])
    operator = folder / "operator.toml"
    operator.write_text(operator.read_text().replace("[link]", "[link]\nconnect_timeout_s = 0.3"))
    for words, expected in (
        (("devices",), "no answer from 127.0.0.1"),
        (("devices", "--where", "tag=="), "character"),
        (("devices", "--settings", str(home.path / "nowhere.toml")), "cannot read"),
        (("doctor", "cam-01"), "no answer from 127.0.0.1"),
        (("devices", "--site", "elsewhere"), "splitfleet site init"),
        (("up", "--site", "elsewhere"), "splitfleet site init"),
        (("up", "--version", "nonesuch"), "there is no version 'nonesuch'"),
    ):
        done = home.run(*words)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and expected in done.stderr, (words, done)
    judged = home.run("doctor", "--json")
    assert judged.returncode == 1 and json.loads(judged.stdout)["checks"][0]["verdict"] == "bad"
    (folder / "recorder.toml").write_text("site = 3\n")
    (folder / "policy.toml").write_text("nonsense = true\n")
    done = home.run("up")
    assert done.returncode == 2 and "policy.toml" in done.stderr


def test_a_command_without_a_site_says_how_to_make_one(home: Home) -> None:
    for command in (["site", "status"], ["devices", "add", "cam-01"], ["devices"], ["doctor"], ["up"]):
        done = home.run(*command)
        assert done.returncode == 2 and "name the site" in done.stderr
    done = home.run("devices", "add", "cam-01", "--site", "nowhere")
    assert done.returncode == 2 and "splitfleet site init" in done.stderr
