"""Listens to a site's devices and prints them as ``splitfleet devices`` does."""

from __future__ import annotations

import time
from typing import Any

from edge_broker_side.inventory import Entry, Inventory, Skew, facts, short
from edge_broker_side.selection import parse
from tools.output import console, print_json, print_table
from tools.site_access import Access
from tools.site_link import SiteLink
from wire.channels import CAPABILITIES, DECISION, STATE, TELEMETRY

RETAINED_S = 0.5
"""Nothing retained comes any more so long after connecting."""
LISTEN_S = 3.0
"""Longest time to wait for the telemetry of devices that are ready; it comes each second if nothing else is set."""
CHANNELS = (STATE, CAPABILITIES, TELEMETRY, DECISION)


def gather(inventory: Inventory, link: SiteLink, listen_s: float = LISTEN_S) -> None:
    """Listen until what is retained is in and every ready device has told of itself, bounded."""
    link.listen(lambda: False, RETAINED_S)
    link.listen(lambda: not inventory.quiet, listen_s - RETAINED_S)


def show(found: Access, where: str, as_json: bool) -> None:
    """Print the devices that a selection chooses."""
    wanted = parse(where)  # a mistake in it is told before anybody is waited for
    inventory = found.inventory()
    with SiteLink(found.settings, CHANNELS, inventory.take) as link:
        gather(inventory, link)
    now_ms = time.time_ns() / 1e6
    chosen = [entry for _, entry in sorted(inventory.entries.items()) if wanted.matches(facts(entry))]
    if as_json:
        devices = [{**told(inventory, one, now_ms), "unreadable": link.unreadable[one.name]} for one in chosen]
        print_json({"site": found.settings.site, "devices": devices})
        return
    print_table(
        f"site {found.settings.site}: {len(chosen)} of {len(inventory.entries)} devices",
        ("device", "state", "board", "runtime", "versions", "plan", "seen", "clock", "client", "tags"),
        [_row(entry, now_ms) for entry in chosen],
    )
    for entry in chosen:
        for problem in inventory.problems(entry):
            console().print(f"{entry.name} {problem}", soft_wrap=True, markup=False)
    for name, count in link.unreadable.items():
        console().print(f"{name} sent {count} messages that cannot be read", soft_wrap=True, markup=False)


def told(inventory: Inventory, entry: Entry, now_ms: float) -> dict[str, Any]:
    """Return everything known of a device, as JSON has it."""
    can, telemetry, skew = entry.capabilities, entry.telemetry, entry.skew
    return {
        "name": entry.name,
        "state": entry.state,
        "reason": entry.told_state.reason if entry.told_state and not entry.buried else "",
        "session": entry.session or None,
        "board": can.board if can else None,
        "class": can.device_class if can else None,
        "runtime": can.runtime if can else None,
        "client_version": can.client_version if can else None,
        "versions": {version.name: version.sha256 for version in can.versions} if can else {},
        "tags": list(entry.tags),
        "plan": str(telemetry.plan) if telemetry else None,
        "decision_rev": telemetry.decision_rev if telemetry else None,
        "decided_plan": str(entry.decision.plan) if entry.decision else None,
        "decided_rev": entry.decision.rev if entry.decision else None,
        "last_seen_s": _seen_s(entry, now_ms),
        "clock_ahead_ms": skew.ahead_ms if skew else None,
        "clock_uncertain_ms": skew.uncertain_ms if skew else None,
        "certificate_expires_s": entry.account.expires_s or None if entry.account else None,
        "problems": list(inventory.problems(entry)),
    }


def _row(entry: Entry, now_ms: float) -> tuple[object, ...]:
    can, telemetry = entry.capabilities, entry.telemetry
    seen_s = _seen_s(entry, now_ms)
    versions = [f"{version.name} {short(version.sha256)}" for version in can.versions] if can else []
    return (
        entry.name,
        entry.state,
        can.board if can else None,
        can.runtime if can else None,
        ", ".join(versions) or None,
        str(telemetry.plan) if telemetry else None,
        None if seen_s is None else _ago(seen_s),
        _clock(entry.skew),
        can.client_version if can else None,
        ", ".join(entry.tags) or None,
    )


def _seen_s(entry: Entry, now_ms: float) -> float | None:
    seen_ms = entry.last_seen_ms
    return None if seen_ms is None else max(0.0, (now_ms - seen_ms) / 1000)


def _ago(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _clock(skew: Skew | None) -> str | None:
    if skew is None:
        return None
    ahead = f"{skew.ahead_ms / 1000:+,.0f} s" if abs(skew.ahead_ms) >= 10_000 else f"{skew.ahead_ms:+.0f}"
    return f"{ahead} ± {'?' if skew.uncertain_ms is None else f'{skew.uncertain_ms:.0f}'} ms"
