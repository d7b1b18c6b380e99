"""The MQTT link over TLS with certificates of both sides."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest

from edge_broker_side.broker import Broker, BrokerSettings, BrokerTls, start_broker
from tests.wire.link_client import Client, quick
from wire.link import Connected, Received, Subscription, TlsSettings

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


def authority(folder: Path, name: str) -> Path:
    """Make a self-signed authority and return the path of its certificate."""
    _openssl("req", "-x509", *KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", cwd=folder)
    return folder / f"{name}.pem"


def signed(folder: Path, ca: str, name: str) -> tuple[str, str]:
    """Make a certificate for ``name`` that ``ca`` signs; return the paths of certificate and key."""
    extensions = folder / f"{name}.ext"
    extensions.write_text("subjectAltName=IP:127.0.0.1\n", encoding="utf-8")
    _openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr", cwd=folder)
    _openssl(
        *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial"),
        *("-days", "2", "-extfile", extensions.name, "-out", f"{name}.pem"),
        cwd=folder,
    )
    return str(folder / f"{name}.pem"), str(folder / f"{name}.key")


def _openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # paho leaves a refused handshake to the collector
def test_both_sides_show_a_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca, stranger = authority(tmp_path, "plant-ca"), authority(tmp_path, "stranger-ca")
    certificate, key = signed(tmp_path, "plant-ca", "broker")
    mine = signed(tmp_path, "plant-ca", "cam-01")
    broker_settings = BrokerSettings(
        folder=str(tmp_path / "broker"),
        port=0,
        kind="mosquitto",
        tls=BrokerTls(certificate, key, client_ca=str(ca)),
        log_file=str(tmp_path / "broker.log"),
    )
    with start_broker(broker_settings) as broker:
        _speaks(broker, TlsSettings(str(ca), *mine))
        with caplog.at_level(logging.WARNING):
            _is_refused(broker, TlsSettings(str(ca)))
            _is_refused(broker, TlsSettings(str(stranger), *mine))
        assert "certificate verify failed" in caplog.text


def _speaks(broker: Broker, tls: TlsSettings) -> None:
    with Client(quick(broker.port, tls=tls), "c", subscriptions=[Subscription("t/#", 1)]) as client:
        client.wait(Connected)
        client.link.publish("t/a", bytes(300_000), qos=1)
        client.link.publish("t/a", b"after", qos=0)
        assert [len(event.payload) for event in client.wait(Received, 2)] == [300_000, 5]


def _is_refused(broker: Broker, tls: TlsSettings) -> None:
    with Client(quick(broker.port, tls=tls), "c") as client:
        while client.link.counters["connect_failures"] < 2:
            assert client.inbox.take(0.05) == []
        assert not client.link.connected
        assert client.link.alive
