"""The pilot's report in the terminal: tables of the JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.output import console, print_table
from tools.pilot.estimates import METRICS
from tools.pilot.schedule import CURRENT

Document = Mapping[str, Any]


def print_devices(told: Document) -> None:
    """Print what devices and links are like."""
    rows = []
    for one in told["devices"]:
        uplink, rtt, fps, head = (one[name] for name in ("uplink_bps", "rtt_ms", "fps", "head_over_profile"))
        mbit = uplink and " / ".join(f"{uplink[share] / 1e6:.2g}" for share in ("p10", "p50", "p90"))
        trip = rtt and f"{rtt['p50']:.3g} / {rtt['p90']:.3g}"
        rows.append([
            one["name"], one["device_class"] or "?", one["slowdown"], one["runtime"], one["energy_source"],
            fps and fps["p50"], one["deadline_ms"], mbit, trip, head and head["p50"],
        ])  # fmt: skip
    columns = ["device", "class", "slowed", "runtime", "energy", "frames/s", "due ms", "Mbit/s p10 / 50 / 90",
               "RTT ms p50 / 90", "head / profile"]  # fmt: skip
    print_table("devices and links as heard (measured)", columns, rows)


def print_report(told: Document) -> None:
    """Print everything after the devices."""
    _print_course(told)
    _print_arms(told)
    for arm in told["protocol"]["arms"]:
        if arm != CURRENT:
            _print_compared(told, arm)
    if told["kpi"] is not None:
        _print_returns(told["kpi"])


def _print_course(told: Document) -> None:
    paper, frames, protocol = console(), told["frames"], told["protocol"]
    if not told["complete"]:
        paper.print(f"partial: {told['interrupted']}", style="bold red", markup=False, soft_wrap=True)
    whole = sum(block["is_whole"] for block in told["blocks"])
    by_arm = ", ".join(f"{arm} {count:,}" for arm, count in frames["by_arm"].items())
    paper.print(
        f"{whole} of {protocol['rounds'] * len(protocol['arms'])} blocks of {protocol['block_s']:g} s, the first "
        f"{protocol['wash_out_s']:g} s of each left out; the site's own policy is {told['policy']}\n"
        f"{frames['came']:,} frames came = {frames['measured']:,} measured ({by_arm}) + {frames['wash_out']:,} in "
        f"wash-outs + {frames['interrupted_block']:,} in an interrupted block + {frames['before_and_after']:,} before "
        f"and after + {frames['without_a_clock']:,} without a clock; {frames['never_came']:,} never came",
        soft_wrap=True,
    )
    if frames["beyond_the_bound"]:
        paper.print(f"{frames['beyond_the_bound']:,} more were left out: too many to keep", soft_wrap=True)
    for note in told["notes"]:
        paper.print(f"note: {note}", markup=False, soft_wrap=True)


def _print_arms(told: Document) -> None:
    arms = told["protocol"]["arms"]
    rows = [
        [f"{metric.title}, {metric.unit}", *(_figure(told["arms"][arm][metric.key], metric.unit) for arm in arms)]
        for metric in METRICS
        if any(told["arms"][arm][metric.key] is not None for arm in arms)
    ]
    mixes = (told["arms"][arm]["outcomes"] for arm in arms)
    rows.append(["edge / device / fallback / dropped", *(" / ".join(str(n) for n in _mix(mix)) for mix in mixes)])
    print_table("how each arm did (latency, bytes and outcomes measured)", ["", *arms], rows)


def _print_compared(told: Document, arm: str) -> None:
    rows = []
    for metric in METRICS:
        one = next((c for c in told["compared"] if c["arm"] == arm and c["metric"] == metric.key), None)
        if one is not None:
            rows.append([
                f"{metric.title}, {metric.unit}", _figure(one["other"], metric.unit),
                _figure(one["current"], metric.unit), _range(one["difference"], one["interval"], metric.unit),
                _ratio(one["ratio"], one["ratio_interval"]), one["verdict"],
            ])  # fmt: skip
    rounds = max((c["rounds"] for c in told["compared"] if c["arm"] == arm), default=0)
    title = (
        f"{told['policy']} (current) instead of {arm}: {rounds} rounds, differences with 95 % intervals, each by itself"
    )
    print_table(title, ["", arm, "current", "difference", "ratio", "current is"], rows)


def _print_returns(kpi: Document) -> None:
    paper, sheet = console(), kpi["sheet"]
    currency = sheet["currency"]
    parts = list(dict.fromkeys(name for one in kpi["returns"] for name in one["saved_per_million"]))
    rows = [
        [
            one["arm"], *(_money(one["saved_per_million"][name]) for name in parts), _amount(one["saving_per_million"]),
            _amount(one["net_per_month"]), _payback(one["payback_months"]),
        ]
        for one in kpi["returns"]
    ]  # fmt: skip
    columns = ["instead of", *parts, "saved per million frames", "net per month", "months to pay back"]
    print_table(
        f"adopting the current policy, in {currency} (an estimate; what is saved, per million frames)", columns, rows
    )
    if any(one["net_per_month"]["low"] is None for one in kpi["returns"]):
        paper.print(
            "[bold]too few rounds for intervals:[/] these amounts illustrate, they show nothing", soft_wrap=True
        )
    adoption = sheet["adoption"]
    paper.print(f"it costs {adoption['once']:,g} once and {adoption['monthly']:,g} a month. Assumed:", soft_wrap=True)
    for line in kpi["assumptions"]:
        paper.print(f"  - {line}", markup=False, soft_wrap=True)
    if kpi["weights_toml"]:
        paper.print("\nweights that follow from the sheet, for the policy's settings file:\n")
        paper.print(kpi["weights_toml"], markup=False)


def _mix(outcomes: Mapping[str, int]) -> list[int]:
    return [outcomes[name] for name in ("edge", "device", "fallback", "dropped")]


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "%":
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _signed(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:+.2f}"
    text = _figure(value, unit)
    return text if text.startswith("-") else f"+{text}"


def _range(value: float, interval: Mapping[str, float] | None, unit: str) -> str:
    if interval is None:
        return _signed(value, unit)
    return f"{_signed(value, unit)} [{_signed(interval['low'], unit)}, {_signed(interval['high'], unit)}]"


def _ratio(value: float | None, interval: Mapping[str, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" + (f" [{interval['low']:.2f}, {interval['high']:.2f}]" if interval else "")


def _money(value: float) -> str:
    return f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.3g}"


def _amount(amount: Mapping[str, Any]) -> str:
    text = _money(amount["estimate"])
    return text if amount["low"] is None else f"{text} [{_money(amount['low'])}, {_money(amount['high'])}]"


def _payback(months: Mapping[str, float | None] | None) -> str:
    if months is None:
        return "never, by the estimate"
    text = f"{months['estimate']:.1f}"
    if months["low"] is None:
        return text
    return f"{text} [{months['low']:.1f}, {'never' if months['high'] is None else format(months['high'], '.1f')}]"
