"""The deployment files: systemd takes the units and finds them hardened, Kubernetes' schemas take the manifests."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edge_broker_side.broker import largest_packet_bytes
from edge_broker_side.identity.site_files import ACCOUNTS, WORKER
from edge_broker_side.recorder import RecorderSettings
from edge_broker_side.worker import WorkerSettings
from policy.settings import PolicySettings
from tools.acl_emqx import emqx_acl
from wire.channels import CHANNELS, ROOT, Role
from wire.settings import settings_from

DEPLOY = Path(__file__).parent.parent / "docs" / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
KUBERNETES = "1.31"
MOST_EXPOSED = 20
"""Of systemd's 100 for a service without any protection."""


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The units with the Python of this machine: systemd looks whether the program is there."""
    folder = tmp_path_factory.mktemp("units")
    for unit in UNITS:
        text = unit.read_text().replace("/opt/splitfleet/bin/python", sys.executable)
        (folder / unit.name).write_text(text)
    return sorted(folder.iterdir())


def services(units: list[Path]) -> list[Path]:
    return [unit for unit in units if unit.suffix == ".service"]


def test_systemd_takes_the_units(units: list[Path]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "splitfleet" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_services_are_hardened(units: list[Path]) -> None:
    for unit in services(units):
        command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager"]
        done = subprocess.run([*command, str(unit)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-200:] + done.stderr
        assert "authority/ca.key" in unit.read_text(), "no service may read the key that makes accounts"


def test_a_service_sees_its_own_account_alone() -> None:
    accounts = "/var/lib/splitfleet/site/accounts"
    for unit in services(UNITS):
        text = unit.read_text()
        start = re.search(r"^ExecStart=.*/(\S+)\.toml$", text, re.MULTILINE)
        assert start is not None
        shown = re.findall(rf"^(\w+)=-?{accounts}(\S*)$", text, re.MULTILINE)
        assert shown == [("TemporaryFileSystem", ":ro,mode=0755"), ("BindReadOnlyPaths", f"/{start[1]}")]


def test_every_service_of_a_site_has_a_unit_that_starts_what_is_there() -> None:
    roles = {"broker"}
    for unit in services(UNITS):
        start = re.search(r"^ExecStart=(\S+) -m (\S+) (.*)$", unit.read_text(), re.MULTILINE)
        assert start is not None and importlib.util.find_spec(f"{start[2]}.__main__")
        *service, file = start[3].split()
        roles |= set(service)
        name = Path(file).stem
        assert name in {*ACCOUNTS, "broker", "%i"}, "a settings file that site init makes"
    target = (DEPLOY / "systemd" / "splitfleet.target").read_text()
    assert {"recorder", "worker"} < roles and f"splitfleet-worker@{WORKER}.service" in target
    for named in re.findall(r"splitfleet-[\w@-]+\.service", target):
        assert (DEPLOY / "systemd" / re.sub(r"@[^.]*", "@", named)).is_file()


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            yield f"{file.name} {document['kind']} {document['metadata']['name']}", document


@pytest.mark.parametrize(("name", "document"), [pytest.param(*one, id=one[0]) for one in manifests()])
def test_kubernetes_takes_the_manifests(name: str, document: dict[str, Any]) -> None:
    assert kubernetes_validate.validate(document, KUBERNETES, strict=True) == KUBERNETES


def test_the_validator_can_refuse() -> None:
    document = dict(next(one for name, one in manifests() if "Deployment" in name))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**document, "spec": {**document["spec"], "replica": 3}}, KUBERNETES, strict=True)


def found(kind: str, name: str) -> dict[str, Any]:
    return next(one for _, one in manifests() if (one["kind"], one["metadata"]["name"]) == (kind, name))


def test_pods_mount_what_there_is_and_select_what_they_label() -> None:
    held = {one["metadata"]["name"] for _, one in manifests() if one["kind"] == "ConfigMap"} | {"splitfleet-profiles"}
    for name, one in manifests():
        if one["kind"] not in ("Deployment", "StatefulSet"):
            continue
        pod = one["spec"]["template"]
        assert one["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items(), name
        claims = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", ())}
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]} | claims
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
        maps = {volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume}
        assert maps <= held, name


@pytest.mark.parametrize(
    ("file", "cls"),
    [("worker.toml", WorkerSettings), ("recorder.toml", RecorderSettings), ("policy.toml", PolicySettings)],
)
def test_the_settings_in_the_manifests_load(file: str, cls: type[Any]) -> None:
    text = found("ConfigMap", "splitfleet-settings")["data"][file].replace("@POD@", "splitfleet-worker-6c9f7d-x2x4z")
    settings = settings_from(cls, tomllib.loads(text), file)
    assert settings.link.tls is not None and settings.site == "plant-1"


def test_emqx_takes_every_packet_and_has_the_acl_of_the_channel_table() -> None:
    data = found("ConfigMap", "splitfleet-emqx")["data"]
    assert data["acl.conf"] == emqx_acl("plant-1"), "make it anew: python -m tools.acl_emqx plant-1"
    megabytes = re.search(r"max_packet_size = (\d+)MB", data["base.hocon"])
    assert megabytes is not None and int(megabytes[1]) * 2**20 >= largest_packet_bytes()
    for words in (
        "verify = verify_peer",
        "fail_if_no_peer_cert = true",
        "no_match = deny",
        "peer_cert_as_username = cn",
    ):
        assert words in data["base.hocon"]


def test_the_acl_for_emqx_says_what_the_table_says() -> None:
    rules = re.findall(r"\{(allow|deny), (all|\{username, \"(\w+)\"\}), (\w+), \[(.*?)\]\}\.", emqx_acl("p"), re.DOTALL)
    told: dict[tuple[str, str], set[str]] = {}
    for what, everybody, account, verb, topics in rules:
        if what == "allow":
            told[account or everybody, verb] = set(re.findall(r'"([^"]+)"', topics))
    roles = {"all": Role.DEVICE, "worker": Role.WORKER, "viewer": Role.SUBSCRIBER, "operator": Role.OPERATOR}
    for account, role in roles.items():
        name = "${username}" if role is Role.DEVICE else "+"
        for verb in ("publish", "subscribe"):
            may = {c.name for c in CHANNELS.values() if role in (c.writers if verb == "publish" else c.readers)}
            assert {f"{ROOT}/p/{name}/{channel}" for channel in may} <= told.get((account, verb), set())
    assert ("viewer", "publish") not in told, "who subscribes writes nothing"
    assert emqx_acl("p").rstrip().endswith("{deny, all}.")
