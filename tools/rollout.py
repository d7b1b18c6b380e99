"""The commands ``splitfleet rollout …``: begin one, watch it, hold it, take it back, and run the server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tools.site import Folder, Json, found

if TYPE_CHECKING:
    from edge_broker_side.rollout.campaign import Status
    from edge_broker_side.rollout.server import RolloutSettings
    from edge_broker_side.rollout.store import Rollout, RolloutStore

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Bring a version to the devices of a site, in stages."
)

Site = Annotated[str, typer.Option("--site", help="Name of the site [the only one there is].", show_default=False)]
Number = Annotated[int | None, typer.Argument(help="Number of the roll-out [the newest].", show_default=False)]
SILENT_S = 30
"""A server that has not looked at a roll-out for so long does not run."""


@app.command()
def start(
    bundle: Annotated[str, typer.Argument(help="A bundle: its id as `models publish` tells it, or a file.")],
    where: Annotated[
        str, typer.Option("--where", help="Which devices, such as: tag=line-3 and runtime=tflite-runtime [all].")
    ] = "",
    stages: Annotated[
        str, typer.Option("--stages", help="Shares of the devices, one stage after the other.")
    ] = "5%,25%,100%",
    success: Annotated[str, typer.Option("--success", help="Share that must be active before the next stage.")] = "98%",
    max_errors: Annotated[str, typer.Option("--max-errors", help="Share that may fail; more stops it at once.")] = "2%",
    limit: Annotated[
        float, typer.Option("--limit", help="Seconds without a step after which a device online counts as failed.")
    ] = 900.0,
    trial_frames: Annotated[
        int, typer.Option("--trial-frames", help="Frames the new version must serve before it is kept.")
    ] = 30,
    site: Site = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Begin a roll-out. The devices of each stage are drawn by lot; a stage that misses a threshold stops it.

    Example: splitfleet rollout start resnet-light-1f2e3d4c5b6a --where tag=line-3 --stages 5%,25%,100%
    """
    from edge_broker_side.rollout.bundles import Bundle
    from edge_broker_side.rollout.campaign import Terms, parse_share, parse_stages
    from edge_broker_side.selection import parse
    from tools.output import console, print_json

    settings = settings_of(found(site, folder))
    terms = Terms(
        parse_stages(stages), parse_share(success, "success"), parse_share(max_errors, "max errors"), limit,
        trial_frames,
    )  # fmt: skip
    selection = parse(where)
    opened = Bundle(_file(settings, bundle), settings.key.read_bytes())
    opened.verify_files()
    kept = settings.bundle(opened.manifest.bundle)
    if opened.path != kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_name(f".{kept.name}.new")
        unfinished.write_bytes(opened.path.read_bytes())
        unfinished.replace(kept)  # as a whole: the server may be handing the older one out
    store = _store(settings)
    begun = store.begin(opened.manifest, selection.text, terms, time.time())
    store.close()
    if as_json:
        print_json({"rollout": begun.id, "bundle": begun.bundle, "slot": begun.slot})
        return
    out = console()
    out.print(f"roll-out {begun.id} of {begun.bundle} to {selection.text or 'every device'} has begun", soft_wrap=True)
    out.print("watch it: splitfleet rollout status")


@app.command("publish-settings")
def publish_settings(
    file: Annotated[Path, typer.Argument(help="Settings (TOML) that go over those of a device's device.toml.")],
    site: Site = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Sign settings into a bundle; `rollout start` brings them to devices. Later ones take the place of earlier ones.

    A device proves that it would start with them, starts anew, and keeps them once it is online and has served frames.

    Example: splitfleet rollout publish-settings faster.toml
    """
    from wire.bundle import SETTINGS

    _publish(SETTINGS, file.read_bytes(), site, folder, as_json=as_json)


@app.command("publish-client")
def publish_client(
    wheel: Annotated[
        Path | None, typer.Argument(help="A wheel of the client [made of this installation].", show_default=False)
    ] = None,
    site: Site = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Sign a release of the client into a bundle; `rollout start` brings it to devices.

    The client that was flashed stays on the board and starts the newer one; the packages it needs must be there.

    Example: splitfleet rollout publish-client
    """
    import tempfile

    from tools.flash.wheel import build_wheel
    from wire.bundle import CLIENT

    with tempfile.TemporaryDirectory() as made:
        data = (wheel or build_wheel(Path(made))).read_bytes()
    _publish(CLIENT, data, site, folder, as_json=as_json)


@app.command()
def status(
    number: Number = None,
    devices: Annotated[bool, typer.Option("--devices", help="Each device, not only the stages.")] = False,
    site: Site = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Show how far a roll-out is, and which devices failed and why.

    Example: splitfleet rollout status --devices
    """
    from edge_broker_side.rollout.campaign import BAD, Fate
    from tools.output import console, print_json, print_table

    store = _store(settings_of(found(site, folder)))
    rollout = store.get(number)
    members, fates = store.members(rollout), store.fates(rollout)
    store.close()
    told = _told(rollout, fates)
    rows = [
        {
            "device": member.device,
            "fate": fates[member.device],
            "stage": member.stage,
            "progress": member.done_bytes / member.size_bytes if member.size_bytes else None,
            "reason": member.reason,
        }
        for member in members
    ]
    if as_json:
        print_json({**told, "devices": rows})
        return
    title = f"roll-out {rollout.id} of {rollout.bundle}: {rollout.status}"
    counts = told["fates"]
    print_table(title, ("stage", "devices", *map(str, Fate)), [(told["stage"], len(rows), *counts.values())])
    out = console()
    if rollout.reason:
        out.print(f"{rollout.status}: {rollout.reason}", soft_wrap=True)
    shown = rows if devices else [row for row in rows if row["fate"] in BAD]
    if shown:
        print_table("" if devices else "failed", tuple(shown[0]), [tuple(row.values()) for row in shown])
    if told["silent"]:
        out.print("the roll-out server does not look at it: is `splitfleet rollout serve` running?")


@app.command()
def pause(number: Number = None, site: Site = "", folder: Folder = None, as_json: Json = False) -> None:
    """Tell no further devices; those that were told go on.

    Example: splitfleet rollout pause
    """
    from edge_broker_side.rollout.campaign import Status

    _turn(number, Status.PAUSED, "by an operator", site, folder, as_json=as_json)


@app.command()
def resume(number: Number = None, site: Site = "", folder: Folder = None, as_json: Json = False) -> None:
    """Go on with a roll-out that was paused, or that stopped by itself; devices told have all their time again.

    Devices that failed or were rolled back stay so: where they alone are too many it is refused; abort, and start anew.

    Example: splitfleet rollout resume
    """
    from edge_broker_side.rollout.campaign import Status

    _turn(number, Status.RUNNING, "", site, folder, as_json=as_json)


@app.command()
def abort(number: Number = None, site: Site = "", folder: Folder = None, as_json: Json = False) -> None:
    """Take a roll-out back from every device that has not kept it; to undo the others, roll the older bundle out.

    Example: splitfleet rollout abort
    """
    from edge_broker_side.rollout.campaign import Status

    _turn(number, Status.ABORTED, "by an operator", site, folder, as_json=as_json)


@app.command()
def serve(
    settings: Annotated[
        Path | None, typer.Argument(help="A settings file (TOML) [rollout.toml of the site].", show_default=False)
    ] = None,
    site: Site = "",
    folder: Folder = None,
) -> None:
    """Run the roll-out server until Ctrl-C: it hands bundles out and goes on from stage to stage. One per site.

    Example: splitfleet rollout serve --site plant-1
    """
    from edge_broker_side.rollout.server import RolloutSettings, run
    from tools.chosen import log_at
    from wire.settings import load_settings
    from wire.signals import stop_on_signals

    chosen = settings_of(found(site, folder)) if settings is None else load_settings(RolloutSettings, settings)
    log_at(chosen.log_level)
    run(chosen, stop_on_signals())


def settings_of(folder: Path) -> RolloutSettings:
    """Return the settings of a site's roll-out server; raises ``SettingsError``."""
    from edge_broker_side.rollout.server import RolloutSettings
    from wire.settings import load_settings

    return load_settings(RolloutSettings, folder / "rollout.toml")


def _publish(kind: str, data: bytes, site: str, folder: Path | None, *, as_json: bool) -> None:
    from edge_broker_side.identity.signing import Signer
    from edge_broker_side.rollout.bundles import make_file_bundle
    from tools.output import console, print_json

    where = found(site, folder)
    out = settings_of(where).bundle("").parent
    path = make_file_bundle(kind, data, out, Signer.of_site(where), int(time.time()))
    if as_json:
        print_json({"bundle": path.stem, "kind": kind, "path": str(path), "bytes": path.stat().st_size})
    else:
        console().print(f"{path.stem} is signed; next: splitfleet rollout start {path.stem}", soft_wrap=True)


def _store(settings: RolloutSettings) -> RolloutStore:
    from edge_broker_side.rollout.store import RolloutStore

    return RolloutStore(settings.store)


def _file(settings: RolloutSettings, bundle: str) -> Path:
    from edge_broker_side.rollout.campaign import RolloutError

    for path in (settings.bundle(bundle), Path(bundle)):
        if path.is_file():
            return path
    there = ", ".join(sorted(path.stem for path in settings.bundle("").parent.glob("*.tar"))) or "none"
    raise RolloutError(
        f"there is no bundle {bundle} (published here: {there}): make one with splitfleet models publish"
    )


def _turn(number: int | None, status: Status, reason: str, site: str, folder: Path | None, *, as_json: bool) -> None:
    from tools.output import console, print_json

    store = _store(settings_of(found(site, folder)))
    turned = store.turn(store.get(number), status, reason, time.time())
    store.close()
    if as_json:
        print_json({"rollout": turned.id, "status": turned.status})
    else:
        console().print(f"roll-out {turned.id} of {turned.bundle} is {turned.status}", soft_wrap=True)


def _told(rollout: Rollout, fates: dict[str, Any]) -> dict[str, Any]:
    from edge_broker_side.rollout.campaign import Fate
    from edge_broker_side.rollout.store import OPEN

    terms = rollout.terms
    silent = rollout.judged_s is None or time.time() - rollout.judged_s > SILENT_S
    return {
        "rollout": rollout.id,
        "bundle": rollout.bundle,
        "slot": rollout.slot,
        "where": rollout.selection,
        "status": rollout.status,
        "reason": rollout.reason,
        "stage": f"{rollout.stage + 1} of {len(terms.stages)} ({100 * terms.stages[rollout.stage]:g} %)",
        "success": terms.success,
        "max_errors": terms.max_errors,
        "fates": {str(one): sum(met == one for met in fates.values()) for one in Fate},
        "silent": silent and rollout.status in OPEN,
        "begun_s": rollout.begun_s,
    }
