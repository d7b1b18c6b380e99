"""``splitfleet pilot``: what adopting the current policy changes on this very site, measured and weighed."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from policy.registry import DEFAULT, policy_names
from policy.shelf import ProfileShelf
from tflite_models.catalog import load_catalog
from tools.operator_link import Operator, OperatorSettings
from tools.output import check_writable, console, progress_bar
from tools.pilot.ground import Ground, emulated_site, running_site
from tools.pilot.hearing import FOLLOWED, Record
from tools.pilot.kpi import load_sheet
from tools.pilot.protocol import Pilot, Protocol
from tools.pilot.report import Knowledge, document
from tools.pilot.schedule import ARMS, schedule
from tools.pilot.view import print_devices, print_report
from tools.prepared import every_version
from tools.spans import milliseconds
from wire.settings import load_settings, settings_from
from wire.signals import stop_on_signals

Show = Callable[[str, int, int], None]


def pilot(
    settings: Annotated[
        Path | None,
        typer.Option("--settings", help="File with site and [link] of an operator's account.", show_default=False),
    ] = None,
    site: Annotated[str | None, typer.Option("--site", help="Name of the site [default].", show_default=False)] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address of the broker [127.0.0.1].", show_default=False)
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of the broker [1883].", show_default=False)] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Run it on the demo's emulated fleet, on steady links.")] = False,
    devices: Annotated[int, typer.Option("--devices", min=1, max=64, help="With --demo: how many.")] = 4,
    policy: Annotated[
        str, typer.Option("--policy", help=f"With --demo: the site's own, of {', '.join(policy_names())}.")
    ] = DEFAULT,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=1000, help="Each arm has a block in each.")] = 4,
    block: Annotated[str, typer.Option("--block", help="How long each arm decides at a time.")] = "60s",
    wash_out: Annotated[str, typer.Option("--wash-out", help="The beginning of each block that is left out.")] = "10s",
    listen: Annotated[str, typer.Option("--listen", help="How long devices and links are listened to first.")] = "20s",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the order, and of the intervals' draws.")] = 0,
    kpi: Annotated[
        Path | None, typer.Option("--kpi", help="KPI sheet (TOML): weights and return follow.", show_default=False)
    ] = None,
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder of model folders [every version].", show_default=False)
    ] = None,
    profiles: Annotated[
        Path | None, typer.Option("--profiles", help="Folder of profiles [this machine's].", show_default=False)
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything as JSON to this file.", show_default=False)
    ] = None,
) -> None:
    """Let all-local, all-remote, greedy and the current policy take turns; tell what adopting the last one changes.

    Only who decides is changed: weights, deadlines, privacy and battery floors stay in force. Every change ends by
    itself should this command die. The exit code is 1 for a partial report.

    Example: splitfleet pilot --demo --rounds 4 --block 20s --kpi docs/examples/kpi.toml
    """
    given = {key: value for key, value in {"site": site, "host": host, "port": port}.items() if value is not None}
    if policy not in policy_names():
        raise typer.BadParameter(f"'{policy}' is none of {', '.join(policy_names())}", param_hint="--policy")
    if demo and (settings or given):
        raise typer.BadParameter("--demo starts a site of its own: leave out --settings, --site, --host and --port")
    spans = {"--block": block, "--wash-out": wash_out, "--listen": listen}
    block_s, wash_out_s, listen_s = (milliseconds(text, option) / 1000 for option, text in spans.items())
    protocol = Protocol(rounds, block_s, wash_out_s, listen_s, seed)
    sheet = load_sheet(kpi) if kpi else None
    check_writable(json_file)
    stop = stop_on_signals()
    with progress_bar() as bar:
        show = bar if sys.stderr.isatty() else _lines()
        ground: AbstractContextManager[Ground] = (
            emulated_site(devices, policy, bar) if demo else nullcontext(running_site(_operator(settings, given)))
        )
        with ground as where:
            record = _conduct(where, protocol, show, stop)
            known = _knowledge(record, models, profiles or where.profiles)
    told = document(record, protocol, known, sheet, where.operator.site, np.random.default_rng([protocol.seed, 1]))
    if json_file is not None:
        json_file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print_devices(told)
    print_report(told)
    if record.interrupted:
        console().print("[bold red]the pilot is partial[/]")
        raise typer.Exit(1)


def _conduct(where: Ground, protocol: Protocol, show: Show, stop: threading.Event) -> Record:
    operator = Operator(where.operator, FOLLOWED)
    try:
        operator.start()
        run = Pilot(operator, protocol, show, stop, where.check, where.devices)
        return run.run(schedule(ARMS, protocol.rounds, np.random.default_rng([protocol.seed, 0])))
    finally:
        operator.stop()


def _operator(file: Path | None, given: dict[str, Any]) -> OperatorSettings:
    if file is None:
        link = {key: given.pop(key) for key in ("host", "port") if key in given}
        return settings_from(OperatorSettings, given | ({"link": link} if link else {}), "options")
    if given:
        raise typer.BadParameter(f"a settings file takes the place of options: set {', '.join(given)} in {file}")
    return load_settings(OperatorSettings, file)


def _knowledge(record: Record, models: Path | None, profiles: Path) -> Knowledge:
    """Return what catalog and profiles of this machine say of the devices that were heard."""
    versions = [folder.version for _, folder in every_version().values()] if models is None else load_catalog(models)
    plans = ((plan, facts.accuracy) for version in versions for plan, facts in version.all_plans())
    shelf = ProfileShelf(profiles)
    found = {
        name: shelf(device.capabilities.device_class, device.capabilities.slowdown)
        for name, device in record.profile.present.items()
        if device.capabilities is not None
    }
    return Knowledge(
        {plan: accuracy for plan, accuracy in plans if accuracy is not None},
        {name: profile for name, profile in found.items() if profile is not None},
    )


def _lines() -> Show:
    """Say on stderr, where no bar can be shown, one line for each block."""
    last = ""

    def show(what: str, _done: int, _total: int) -> None:
        nonlocal last
        part = what.partition(" decides")[0] if " decides" in what else what.partition(" ")[0]
        if part != last:
            last = part
            sys.stderr.write(f"{what}\n")

    return show
