"""How the demo looks: the live table while it runs, and the summary at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tools.demo_scenario import DemoDevice
from tools.fleet_view import DeviceView, FleetView, summarise
from tools.shaping import LinkShape
from wire.messages import DeviceState, Outcome

OUTCOME_STYLE = {
    Outcome.EDGE: "cyan",
    Outcome.DEVICE: "green",
    Outcome.FALLBACK: "yellow",
    Outcome.DROPPED: "red",
}
STATE_STYLE = {DeviceState.READY: "green", DeviceState.LOST: "bold red"}
BAR_WIDTH = 16


def live(
    elapsed_s: float,
    seconds: float,
    policy: str,
    devices: Sequence[DemoDevice],
    view: FleetView,
    links: Mapping[str, LinkShape | None],
    news: Sequence[str],
) -> RenderableType:
    """Return the picture of this moment; a link of ``None`` is down."""
    table = Table(expand=True, pad_edge=False, header_style="bold", title_justify="left", box=box.SIMPLE_HEAD)
    table.title = f"splitfleet demo · {elapsed_s:3.0f} of {seconds:.0f} s · policy {policy}"
    for column in ("device", "state", "link Mbit/s", "believed", "plan", "outcomes", "p50 ms", "p95 ms", "mJ", "right"):
        table.add_column(column, justify="right" if column in {"p50 ms", "p95 ms", "mJ", "right"} else "left")
    for device in devices:
        table.add_row(*_device_row(device, view.devices.get(device.name), links.get(device.name)))
    legend = Text.assemble(*((f"■ {outcome}  ", style) for outcome, style in OUTCOME_STYLE.items()))
    reasons = [
        f"{name}: {shown.decision.plan} — {shown.decision.reason}"
        for name, shown in sorted(view.devices.items())
        if shown.decision
    ]
    return Group(
        table,
        legend,
        Text(_edge_line(view)),
        Panel("\n".join(reasons) or "none yet", title="last decisions", title_align="left", border_style="dim"),
        Panel("\n".join(news[-4:]) or "nothing yet", title="what happened", title_align="left", border_style="dim"),
    )


def _device_row(device: DemoDevice, shown: DeviceView | None, link: LinkShape | None) -> list[RenderableType]:
    name = f"{device.name} (emulated {device.board.slowdown:g}×)"
    if shown is None or shown.state is None:
        return [name, "starting"]
    frames = list(shown.recent)[-60:]
    facts = summarise([DeviceView(device.name, frames={(0, i): f for i, f in enumerate(frames)})])
    uplink = shown.telemetry.uplink_bps if shown.telemetry else None
    plan = str(shown.telemetry.plan) if shown.telemetry else ""
    return [
        name,
        Text(shown.state, style=STATE_STYLE.get(shown.state, "yellow")),
        Text("down", style="bold red") if link is None else f"{link.uplink_bps / 1e6:g}",
        "–" if uplink is None else f"{uplink / 1e6:.2g}",
        plan,
        _bar(facts["outcomes"]),
        _figure(facts["latency_ms_p50"]),
        _figure(facts["latency_ms_p95"]),
        _figure(facts["energy_mj_mean"]),
        "–" if facts["accuracy"] is None else f"{facts['accuracy']:.0%}",
    ]


def _bar(outcomes: Mapping[str, int]) -> Text:
    """Return the shares of the four outcomes as one coloured bar."""
    total = sum(outcomes.values())
    bar = Text()
    drawn = seen = 0
    for outcome, style in OUTCOME_STYLE.items():
        seen += outcomes.get(outcome, 0)
        upto = round(BAR_WIDTH * seen / total) if total else 0
        bar.append("█" * (upto - drawn), style=style)
        drawn = upto
    return bar


def _edge_line(view: FleetView) -> str:
    if not view.workers:
        return "edge: no worker yet"
    return " · ".join(
        f"edge {name}: {load.utilisation:.0%} busy, {load.served / max(load.period_ms, 1) * 1000:.0f} frames/s, "
        f"batch {load.batch_mean:.1f}, wait {load.wait_ms_mean:.1f} ms, queue {load.queued}"
        for name, load in sorted(view.workers.items())
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def summary_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the figures of each device and of the fleet, as ``summarise`` gives them."""
    table = Table(title=title, title_justify="left", pad_edge=False, header_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("device")
    for column in (
        "frames", "edge", "device", "fallback", "dropped", "unaccounted", "switches", "p50 ms", "p95 ms", "accuracy",
        "mJ/frame", "bytes/frame",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for name, facts in rows.items():
        outcomes = facts["outcomes"]
        table.add_row(
            name,
            str(facts["frames_captured"]),
            *(str(outcomes.get(outcome.value, 0)) for outcome in Outcome),
            Text(str(facts["unaccounted"]), style="bold red" if facts["unaccounted"] else ""),
            "–" if facts.get("plan_switches") is None else str(facts["plan_switches"]),
            _figure(facts["latency_ms_p50"]),
            _figure(facts["latency_ms_p95"]),
            "–" if facts["accuracy"] is None else f"{facts['accuracy']:.1%}",
            f"{_figure(facts['energy_mj_mean'])} {facts.get('energy_source') or ''}".strip(),
            _figure(facts["bytes_mean"]),
            style="bold" if name == "fleet" else "",
        )
    return table


def decided_by_words(report: Mapping[str, Any]) -> str:
    """Say who made the decisions of a run, and why another policy than the one asked for where one did."""
    told = ", ".join(f"{count} by {name}" for name, count in report["decided_by"].items()) or "none"
    text = f"policy {report['policy']}: decisions: {told}"
    if report["decide_ms_max"] is not None:
        text += f"; a round took {report['decide_ms_max']:.0f} ms at most"
    if report["fallback"]:
        reasons = "; ".join(f"{why} ({rounds} device rounds)" for why, rounds in report["fallback"].items())
        text += f"; fallback: {reasons}"
    return text
