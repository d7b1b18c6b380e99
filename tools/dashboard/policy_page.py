"""The policy: what it told the fleet, how varied, how fast, and when its guard stepped in."""

from __future__ import annotations

import time

from markupsafe import Markup
from nicegui import ui

from tools.dashboard import charts
from tools.dashboard.charts import Clock
from tools.dashboard.drawing import CHARTS_EVERY, card, chart, redraw
from tools.dashboard.feed import Feed
from tools.dashboard.markup import counters, facts, percent, table
from tools.dashboard.memory import ServerMemory
from tools.dashboard.snapshot import Snapshot
from wire.messages import PolicyState, Shadow

BAD = Markup('<span class="bad">{}</span>')


class PolicyPage:
    """Shows the decision service that spoke last; a site has one, two while one takes over from the other."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._head = ui.html("", sanitize=False)
        self._body = ui.element("div")
        with self._body:
            with ui.element("div").classes("sf-two"):
                with card("Now"):
                    self._now = ui.html("", sanitize=False)
                with card("Plan mix", "devices by the plan they were told last"):
                    self._mix = chart(tall=True)
            with ui.element("div").classes("sf-two"):
                with card("How varied", "entropy in % of its maximum (left), switches per device and minute (right)"):
                    self._varied = chart()
                with card("How fast", "time of a round of decisions, ms"):
                    self._fast = chart()
            with ui.element("div").classes("sf-two"):
                with card(
                    "Guard: rounds decided by the fallback", "device rounds since this dashboard began to listen"
                ):
                    self._guard = ui.html("", sanitize=False)
                with card("Refused lately"):
                    self._problems = ui.html("", sanitize=False)
            with ui.element("div").classes("sf-two"):
                with card("Policy in shadow", "watches, decides nothing"):
                    self._shadow = ui.html("", sanitize=False)
                with card("Counters", "since the service began"):
                    self._counters = ui.html("", sanitize=False)

    def draw(self, snapshot: Snapshot) -> None:
        """Show the picture of this moment."""
        with self._feed.reading() as memory:
            heard = [policy for policy in memory.policies.values() if policy.last is not None]
            policy = max(heard, key=lambda one: one.seen_s or 0.0, default=None)
            self._body.set_visibility(policy is not None)
            if policy is None or policy.last is None:
                self._head.content = "<h1>Policy</h1><p>No decision service has been heard of yet.</p>"
                return
            told = policy.last
            self._head.content = Markup("<h1>{} decides</h1>").format(told.deciding)
            self._texts(policy, told, snapshot)
            if snapshot.number % CHARTS_EVERY == 0 or not self._mix.options.get("series"):
                clock = Clock(snapshot.now_s, time.time(), self._feed.begun_s)
                redraw(self._mix, charts.plan_mix(told))
                redraw(self._varied, charts.varied(policy.series, clock))
                redraw(
                    self._fast,
                    charts.columns(policy.series, {"decide_ms_max": "slowest", "decide_ms_mean": "mean"}, clock),
                )

    def _texts(self, policy: ServerMemory[PolicyState], told: PolicyState, snapshot: Snapshot) -> None:
        self._now.content = facts(
            [
                ("service", policy.name),
                ("asked for", told.policy),
                ("deciding for most", told.deciding),
                ("weights", Markup('<span class="mono">{}</span>').format(told.weights) if told.weights else None),
                ("devices in the last round", f"{told.devices:,}"),
                ("decisions in the last period", f"{told.decisions:,} in {told.period_ms / 1000:.0f} s"),
                ("entropy of the plans", f"{told.entropy:.2f} nats, {told.entropy_share:.0%} of its maximum"),
                ("collapsed to one plan", BAD.format(told.collapse or "yes") if told.collapsed else "no"),
                ("switches per device and minute", f"{told.switches_per_minute:.2f}"),
                ("time of a round, mean / slowest", f"{told.decide_ms_mean:.1f} / {told.decide_ms_max:.1f} ms"),
                ("workers' measured over predicted busy time", f"{told.edge_calibration:.2f}"),
                ("rounds by the fallback in the last period", f"{sum(told.fallback.values()):,}"),
                ("last heard", f"{max(snapshot.now_s - (policy.seen_s or 0.0), 0.0) // 5 * 5:.0f} s ago"),
            ]
        )  # fmt: skip
        self._guard.content = counters(policy.reasons, "It never did.")
        self._problems.content = table(("problem",), ((problem[:300],) for problem in told.problems[:20]), "Nothing.")
        self._shadow.content = _shadow(policy.shadow)
        self._counters.content = counters(told.counters, "All of them are 0.")


def _shadow(told: Shadow | None) -> Markup:
    if told is None:
        return Markup("<p>None is set.</p>")
    differing = sum(one.acting_plan != one.shadow_plan for one in told.devices)
    gains = [
        one.shadow_reward - one.acting_reward
        for one in told.devices
        if one.shadow_reward is not None and one.acting_reward is not None
    ]
    return facts(
        [
            ("acting", told.acting),
            ("in shadow", told.shadow),
            ("decisions that differ", f"{differing} of {len(told.devices)} ({percent(differing, len(told.devices))})"),
            ("predicted reward, shadow less acting", f"{sum(gains) / len(gains):+.4f} (modelled)" if gains else None),
        ]
    )
