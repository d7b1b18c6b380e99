"""The `splitfleet` command: the table of its subcommands, each imported only when it is run."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

TOLD = {
    "wire.errors.WireError",
    "tflite_models.catalog.ModelsError",
    "tflite_models.profile.ProfileError",
    "device_client.errors.DeviceError",
    "edge_broker_side.errors.EdgeError",
    "policy.errors.PolicyError",
    "tools.supervisor.SupervisorError",
    "tools.flash.errors.FlashError",
}
"""Root errors that speak to the user: one line and exit code 2. By name, so that none need be imported."""

OWN = {"wire", "device_client", "edge_broker_side", "policy", "tflite_models", "tools"}

Table = Mapping[str, tuple[str | Mapping[str, tuple[str, str]], str]]
"""Name → (``module:attribute`` or a table of subcommands, one line of help)."""

COMMANDS: Table = {
    "demo": ("tools.demo:demo", "Watch a small fleet work on this machine."),
    "broker": ("tools.servers:broker", "Run an MQTT broker: mosquitto, or the embedded one."),
    "worker": ("tools.servers:worker", "Run an edge worker that completes inference."),
    "recorder": ("tools.servers:recorder", "Run the recorder that stores every frame's outcome."),
    "mirror": ("tools.servers:mirror", "Say results, states and decisions again as JSON."),
    "watch": ("tools.watch:watch", "Print results, states or decisions as they come."),
    "report": ("tools.reports.command:report", "Report what became of every frame: table, JSON, CSV or a page."),
    "acl": ("tools.servers:acl", "Print the broker's ACL file for the accounts of a site."),
    "dashboard": ("tools.dashboard.command:dashboard", "Serve a live page of the fleet."),
    "site": ("tools.site:app", "Make a site with its certificates and settings, and look at it."),
    "devices": ("tools.devices:app", "See the devices of a site, let them in, and shut them out."),
    "doctor": ("tools.doctor:doctor", "Look at a site's edge or at one device, and say what to change."),
    "up": ("tools.up:up", "Start a whole site from its settings, and keep it running."),
    "flash": ("tools.flash.command:flash", "Make all that a board needs: a folder, a card, or over SSH."),
    "rollout": ("tools.rollout:app", "Bring a version to the devices of a site, in stages."),
    "models": ("tools.models:app", "List, cut, verify, add, prepare, publish and build models."),
    "profile": (
        {
            "device": ("tools.profile:device", "Measure every plan's head on this machine."),
            "edge": ("tools.profile_edge:edge", "Measure every plan's tail on this machine."),
        },
        "Measure what plans cost on this machine.",
    ),
    "policy": ("tools.policy:app", "Run the policy that decides the plans, judge it and teach it."),
    "metrics": ("tools.metrics:app", "Tell what the metrics server lacks; send it again."),
    "pilot": ("tools.pilot.command:pilot", "Let policies take turns and tell what adopting one changes."),
    "bench": (
        {
            "device": ("tools.bench.device:device", "The device client against the bare interpreter loop."),
            "worker": ("tools.bench.worker:worker", "The edge worker against the bare interpreter loop."),
            "policy": ("tools.bench.policy:policy", "How long a decision for a whole site takes."),
            "metrics": ("tools.bench.metrics:metrics", "Recorder and forwarder beside influxdb-client's batching."),
            "dashboard": ("tools.bench.dashboard:dashboard", "The live page under a large fleet, in a real browser."),
            "report": ("tools.bench.report:report", "How long a report over a store takes."),
            "rollout": ("tools.bench.rollout:rollout", "A roll-out to hundreds of devices, some of them killed."),
        },
        "Measure device, worker, decisions and reports.",
    ),
}


class Pending(TyperCommand):
    """A subcommand known by name and one line of help; its module is imported when it is run."""

    def __init__(self, name: str, target: str, summary: str) -> None:
        super().__init__(name=name, callback=None, help=summary, add_help_option=False)
        self.target = target

    def load(self) -> Any:
        """Import the module and return the real command; a function becomes a command of its own."""
        module, _, attribute = self.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command = typer.main.get_group(found)
        else:
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command(self.name)(found)
            command = typer.main.get_command(single)  # type: ignore[assignment]
        command.name = self.name
        return command


class LazyGroup(TyperGroup):
    """A group whose help needs no import and whose subcommands load on use."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the real command behind a name."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Pending) else command, rest


def lazy_commands(table: Table) -> list[Any]:
    """Return the commands of a table, none of them imported yet."""
    commands: list[Any] = []
    for name, (target, summary) in table.items():
        if isinstance(target, str):
            commands.append(Pending(name, target, summary))
        else:
            group = LazyGroup(name=name, help=summary, commands=lazy_commands(target), no_args_is_help=True)
            group.rich_markup_mode = None
            commands.append(group)
    return commands


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"splitfleet {version('splitfleet')}")
        raise typer.Exit


def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Split neural networks between small boards and an edge machine.

    Example: splitfleet demo --seconds 60
    """
    _State.debug = debug


class _State:
    debug = False


def build() -> Any:
    """Return the whole command. Help is plain text: rich alone would take half of the time an answer may take."""
    app = typer.Typer(
        cls=LazyGroup, name="splitfleet", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    app.callback()(root)
    group = typer.main.get_group(app)
    for command in lazy_commands(COMMANDS):
        group.add_command(command)
    return group


def main() -> None:
    """Run the command line; an error that concerns the user is one line on stderr and exit code 2."""
    try:
        build().main(prog_name="splitfleet")
    except Exception as error:
        message = _told(error)
        if message is None:
            raise
        from tools.output import print_error

        if _State.debug:
            traceback.print_exc()
        print_error(message)
        sys.exit(2)


def _told(error: Exception) -> str | None:
    """Return what to tell the user, or ``None`` for an error that is our own fault."""
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in OWN:
        every = "splitfleet[device,edge,policy,reports,dashboard]"
        return f"{error.name} is not installed; every part is there after: pip install '{every}'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}"
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__}
    return str(error) if names & TOLD else None


if __name__ == "__main__":
    main()
