"""The commands ``splitfleet policy rules …``: tell a running policy what each device is to be decided by."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tools.spans import milliseconds

if TYPE_CHECKING:
    from tools.operator_link import Operator
    from wire.messages import Rules

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Set, show and clear rules while the policy runs.")

EVERY_DEVICE = "defaults"

All = Annotated[bool, typer.Option("--all", help="Every device, in place of a name.")]
Site = Annotated[str | None, typer.Option("--site", help="Name of the site [default].", show_default=False)]
Host = Annotated[str | None, typer.Option("--host", help="Address of the broker [127.0.0.1].", show_default=False)]
Port = Annotated[int | None, typer.Option("--port", help="Port of the broker [1883].", show_default=False)]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--settings", help="File with site and [link], for accounts and TLS, in place of these.", show_default=False
    ),
]


@app.command("set", short_help="Set rules of one device or of all.")
def set_rules(
    device: Annotated[str | None, typer.Argument(help="Name of the device.", show_default=False)] = None,
    everyone: All = False,
    weights: Annotated[
        str | None, typer.Option("--weights", help="accuracy,latency,energy; they sum to 1.", show_default=False)
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option("--deadline-ms", help="Deadline of a frame.", show_default=False)
    ] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--no-private", help="Pictures must not leave the device.")
    ] = None,
    battery_floor: Annotated[
        float | None, typer.Option("--battery-floor", help="0 to 1: below it, least energy.", show_default=False)
    ] = None,
    battery_wh: Annotated[
        float | None, typer.Option("--battery-wh", help="What a full battery holds.", show_default=False)
    ] = None,
    battery_hours: Annotated[
        float | None, typer.Option("--battery-hours", help="How long a charge must last.", show_default=False)
    ] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", help="version/cut/codec, for policy fixed.", show_default=False)
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", help="Decides instead of the service's own; with --all and --for.", show_default=False
        ),
    ] = None,
    policy_for: Annotated[
        str | None, typer.Option("--for", help="How long, such as 90s, 10m, 2h; a day at most.", show_default=False)
    ] = None,
    site: Site = None,
    host: Host = None,
    port: Port = None,
    settings: Settings = None,
) -> None:
    """Set rules of one device or of all, without a restart; what is not named stays as it is.

    They hold before the policy's settings file, and until they are cleared; --all holds before a device's rules there.
    A policy set with --all --policy greedy --for 10m gives way to the service's own by itself.

    Example: splitfleet policy rules set cam-1 --weights 0.2,0.2,0.6 --deadline-ms 250 --private
    """
    from policy.hearing import rules_of, trial_of
    from tools.output import console
    from wire.channels import RULES
    from wire.codec import encode
    from wire.messages import Rules
    from wire.plan import parse_plan

    name = _name(device, everyone)
    wanted: dict[str, Any] = {
        "weights": None if weights is None else _weights(weights),
        "deadline_ms": deadline_ms,
        "may_ship_input": None if private is None else not private,
        "battery_floor": battery_floor,
        "battery_wh": battery_wh,
        "battery_hours": battery_hours,
        "policy": policy,
        "policy_for_s": None if policy_for is None else milliseconds(policy_for, "--for") / 1000,
    }
    try:
        wanted["plan"] = None if plan is None else parse_plan(plan)
    except ValueError as error:
        raise typer.BadParameter(f"--plan: {error}") from error
    wanted = {key: value for key, value in wanted.items() if value is not None}
    if not wanted:
        raise typer.BadParameter("say what to set, such as --deadline-ms 250")
    rules_of(replace(Rules(1), **wanted))
    trial_of(name, replace(Rules(1), **wanted))
    with _operator(site, host, port, settings) as operator:
        before, now_ms = operator.rules.get(name, Rules(0)), time.time_ns() // 1_000_000
        told = replace(with_time_left(before, now_ms), **wanted, rev=before.rev + 1, at_ms=now_ms)
        operator.say(name, encode(RULES, told))
    console().print(f"{_whose(name)}: {_words(told)} (revision {told.rev})")


@app.command("show", short_help="Show the rules that were set.")
def show_rules(
    site: Site = None,
    host: Host = None,
    port: Port = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show the rules that were set at run time; those of the policy's settings file hold where these say nothing.

    Example: splitfleet policy rules show --site plant
    """
    from tools.output import console, print_json, print_table

    with _operator(site, host, port, settings) as operator:
        told = dict(sorted(operator.rules.items()))
    if as_json:
        print_json({name: asdict(rules) | {"plan": rules.plan and str(rules.plan)} for name, rules in told.items()})
    elif not told:
        console().print("no rules are set: the policy's settings file holds")
    else:
        rows = [[_whose(name), rules.rev, _words(rules)] for name, rules in told.items()]
        print_table("", ["device", "revision", "rules"], rows)


@app.command("clear", short_help="Take rules back.")
def clear_rules(
    device: Annotated[str | None, typer.Argument(help="Name of the device.", show_default=False)] = None,
    everyone: All = False,
    site: Site = None,
    host: Host = None,
    port: Port = None,
    settings: Settings = None,
) -> None:
    """Take back the rules of one device, or with --all those that were set for every device.

    Example: splitfleet policy rules clear cam-1
    """
    from tools.output import console

    name = _name(device, everyone)
    with _operator(site, host, port, settings) as operator:
        known = name in operator.rules
        operator.say(name, b"")
    console().print(f"{_whose(name)}: {'cleared' if known else 'there were none'}")


@contextmanager
def _operator(site: str | None, host: str | None, port: int | None, file: Path | None) -> Iterator[Operator]:
    from tools.chosen import settings_of, typed
    from tools.operator_link import Operator, OperatorSettings

    given = typed(site=site, link=typed(host=host, port=port))
    operator = Operator(settings_of(OperatorSettings, file, given, {}))
    try:
        operator.start()
        yield operator
    finally:
        operator.stop()


def _name(device: str | None, everyone: bool) -> str:
    if (device is None) != everyone:
        raise typer.BadParameter("name a device, or say --all")
    return EVERY_DEVICE if device is None else device


def with_time_left(rules: Rules, now_ms: int) -> Rules:
    """Return rules whose policy ends when it would have ended; sent as they are, its time would begin anew."""
    if rules.policy_for_s is None:
        return rules
    left_s = rules.policy_for_s - max(0.0, (now_ms - rules.at_ms) / 1000)
    if left_s <= 0:
        return replace(rules, policy=None, policy_for_s=None)
    return replace(rules, policy_for_s=left_s)


def _weights(text: str) -> tuple[float, ...]:
    try:
        accuracy, latency, energy = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--weights {text}: write accuracy,latency,energy, such as 0.2,0.2,0.6") from None
    return accuracy, latency, energy


def _whose(name: str) -> str:
    return "every device" if name == EVERY_DEVICE else name


def _words(rules: Rules) -> str:
    told: Mapping[str, Any] = {
        "weights": rules.weights and ", ".join(f"{weight:.3g}" for weight in rules.weights),
        "deadline": rules.deadline_ms and f"{rules.deadline_ms:g} ms",
        "pictures": {None: None, True: "may leave", False: "stay on the device"}[rules.may_ship_input],
        "battery floor": None if rules.battery_floor is None else f"{rules.battery_floor:.0%}",
        "battery": rules.battery_wh and f"{rules.battery_wh:g} Wh",
        "a charge lasts": rules.battery_hours and f"{rules.battery_hours:g} h",
        "plan": rules.plan,
        "policy": rules.policy and f"{rules.policy} for {rules.policy_for_s or 0:g} s",
    }
    return "; ".join(f"{key} {value}" for key, value in told.items() if value is not None)
