"""Gathers what the doctor judges: listens to a site, shakes hands with its broker, looks at what lies here."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_broker_side.broker_config import BrokerSettings, largest_packet_bytes
from edge_broker_side.broker_log import read_counts
from edge_broker_side.errors import EdgeError
from edge_broker_side.identity.register import SiteRegister
from edge_broker_side.identity.site_files import POLICY, RECORDER
from edge_broker_side.recorder import RecorderSettings
from edge_broker_side.store import StoreError
from edge_broker_side.totals import last_stored_ms, totals
from policy.errors import PolicyError
from policy.settings import PolicySettings
from tflite_models.profile import ProfileError, load_device_profile
from tools.doctor_check import Check, Verdict
from tools.doctor_device import DeviceEvidence, device_checks
from tools.doctor_site import SiteEvidence, StoreFacts, Tls, site_checks
from tools.inventory import CHANNELS, RETAINED_S
from tools.operator_link import NotReached
from tools.output import print_json, print_table, progress_bar
from tools.site_access import Access
from tools.site_link import SiteLink
from wire.channels import OUTCOMES, POLICY_STATE, RECORDER_STATE, WORKER_LOAD, WORKER_STATE
from wire.errors import WireError
from wire.link import LinkSettings
from wire.messages import Outcomes, PolicyState, RecorderState, WorkerLoad, WorkerState
from wire.mqtt import tls_context
from wire.settings import load_settings

PINGS = 50
PINGS_AT_MOST_S = 10.0
SERVICES = (WORKER_STATE, WORKER_LOAD, POLICY_STATE, RECORDER_STATE)


class NoSuchDevice(EdgeError):
    """Nobody of that name is known."""


def examine(found: Access, device: str, seconds: float) -> list[Check]:
    """Return what the doctor says of the edge, or of one device; raises ``NoSuchDevice``, ``NotReached``."""
    return list(device_checks(_device(found, device, seconds)) if device else site_checks(_site(found, seconds)))


def show(site: str, device: str, checks: Sequence[Check], as_json: bool) -> bool:
    """Print the report; return whether nothing is bad."""
    fine = all(check.verdict is not Verdict.BAD for check in checks)
    if as_json:
        print_json({"site": site, "device": device or None, "ok": fine, "checks": [asdict(check) for check in checks]})
        return fine
    print_table(
        f"site {site}, {device}" if device else f"site {site}",
        ("what", "measured", "verdict", "what to change"),
        [(check.what, check.value, check.verdict.value, check.advice or None) for check in checks],
    )
    return fine


def _site(found: Access, seconds: float) -> SiteEvidence:
    link = found.settings.link
    seen = SiteEvidence(f"{link.host}:{link.port}", encrypted=link.tls is not None, needed_bytes=largest_packet_bytes())
    inventory = found.inventory()
    seen.store = _store(found)
    if found.folder is not None:
        seen.acl_up_to_date = SiteRegister(found.folder).up_to_date
        seen.refused = _refused(found)

    def take(name: str, message: Any, arrived_ms: float) -> None:
        match message:
            case WorkerState():
                if name not in seen.workers or message.session >= seen.workers[name].session:
                    seen.workers[name] = message
            case WorkerLoad():
                seen.loads[name] = message
            case PolicyState():
                seen.policies[name] = message
            case RecorderState():
                seen.recorders[name] = message
            case _:
                inventory.take(name, message, arrived_ms)

    try:
        with SiteLink(found.settings, (*CHANNELS, *SERVICES), take) as way, progress_bar() as show_progress:
            seen.tls = _handshake(link)
            seen.max_packet_bytes = way.max_packet_bytes
            show_progress("pinging the broker", 0, 2)
            seen.pings_ms = way.ping(PINGS, PINGS_AT_MOST_S)
            show_progress("listening", 1, 2)
            way.listen(lambda: bool(seen.policies and seen.recorders and seen.loads and not inventory.quiet), seconds)
    except NotReached as error:
        seen.unreached = str(error)
    seen.devices = Counter(entry.state for entry in inventory.entries.values())
    return seen


def _device(found: Access, name: str, seconds: float) -> DeviceEvidence:
    inventory = found.inventory()
    rows: list[Outcomes] = []

    def take(sender: str, message: Any, arrived_ms: float) -> None:
        if isinstance(message, Outcomes):
            if sender == name:
                rows.append(message)
        else:
            inventory.take(sender, message, arrived_ms)

    with SiteLink(found.settings, (*CHANNELS, OUTCOMES), take) as way, progress_bar() as show_progress:
        show_progress(f"listening to {name}", 0, 1)
        way.listen(lambda: False, RETAINED_S)
        if name in inventory.entries:
            way.listen(lambda: False, seconds - RETAINED_S)
    entry = inventory.entries.get(name)
    if entry is None:
        known = ", ".join(sorted(inventory.entries)) or "none"
        raise NoSuchDevice(f"there is no device {name}; there are {known}")
    seen = DeviceEvidence(entry, inventory.problems(entry), [row for message in rows for row in message.rows])
    if entry.account is not None and entry.account.expires_s:
        seen.days_left = (entry.account.expires_s - time.time()) / 86_400
    _add_profile(found, seen)
    _add_gap(found, seen)
    return seen


def _handshake(link: LinkSettings) -> Tls | None:
    """Return what the broker shows in a handshake of TLS; ``None`` where none is spoken."""
    if link.tls is None:
        return None
    context = tls_context(link.tls)
    with (
        socket.create_connection((link.host, link.port), timeout=link.connect_timeout_s) as bare,
        context.wrap_socket(bare, server_hostname=link.host) as secured,
    ):
        shown: Any = secured.getpeercert() or {}
        ends_s = ssl.cert_time_to_seconds(str(shown["notAfter"]))
        return Tls(secured.version() or "unknown", (ends_s - time.time()) / 86_400)


def _store(found: Access) -> StoreFacts | None:
    files = found.files
    if files is None:
        return None
    with suppress(WireError, StoreError, OSError):
        path = Path(load_settings(RecorderSettings, files.path(RECORDER)).store.path)
        newest_ms = last_stored_ms(path) if path.exists() else None
        age_s = None if newest_ms is None else max(0.0, time.time() - newest_ms / 1000)
        return StoreFacts(str(path), shutil.disk_usage(path.parent).free / 2**20, age_s)
    return None


def _refused(found: Access) -> Counter[str]:
    files, counts = found.files, Counter[str]()
    with suppress(WireError):
        if files is not None:
            for (attempt, _), count in read_counts(
                Path(load_settings(BrokerSettings, files.path("broker")).folder)
            ).items():
                counts[str(attempt)] += count
    return counts


def _add_profile(found: Access, seen: DeviceEvidence) -> None:
    files, can = found.files, seen.entry.capabilities
    if files is None or can is None:
        return
    with suppress(WireError, PolicyError):
        folder = Path(load_settings(PolicySettings, files.path(POLICY)).profiles)
        seen.profiled = True
        try:
            seen.profile = load_device_profile(folder / f"{Path(can.device_class).name}.json")
        except ProfileError as error:
            seen.profile_problem = str(error)


def _add_gap(found: Access, seen: DeviceEvidence) -> None:
    files = found.files
    if files is None:
        return
    with suppress(WireError, StoreError):
        path = load_settings(RecorderSettings, files.path(RECORDER)).store.path
        told = totals(Path(path), found.settings.site).devices.get(seen.entry.name)
        if told is not None:
            seen.gap, seen.captured = told.gap, told.captured
