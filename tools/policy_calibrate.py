"""The command ``splitfleet policy calibrate``: the cost model's predictions against frames really sent."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tools.calibration_site import BoardSetup, PlanRun

DEFAULT_PLANS = 12
DEFAULT_SLOWDOWN = 25.0
"""The demo's middle board: on a fast machine the heads of the shipped zoo take about a millisecond."""


def calibrate(
    profile: Annotated[
        Path | None, typer.Option("--profile", help="Profile of this machine as a device [measured at once].")
    ] = None,
    edge_profile: Annotated[
        Path | None, typer.Option("--edge-profile", help="Profile of this machine as the edge [measured at once].")
    ] = None,
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder of model folders with heads and tails [the demo's].")
    ] = None,
    plans: Annotated[
        str, typer.Option("--plans", help="all, a number of plans, or plans (version/cut/codec) with commas between.")
    ] = str(DEFAULT_PLANS),
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames of each plan that are timed.")] = 40,
    fps: Annotated[float, typer.Option("--fps", min=0.1, max=100, help="Frames per second of the camera.")] = 5.0,
    slowdown: Annotated[
        float, typer.Option("--slowdown", min=1, max=1000, help="Emulate a board so many times slower; 1: as it is.")
    ] = DEFAULT_SLOWDOWN,
    uplink_mbps: Annotated[
        float | None, typer.Option("--uplink-mbps", min=0.01, help="Emulate a link of this rate [loopback as it is].")
    ] = None,
    delay_ms: Annotated[float, typer.Option("--delay-ms", min=0, help="One-way delay of the emulated link.")] = 10.0,
    embedded: Annotated[bool, typer.Option(help="Use the embedded broker even where mosquitto is installed.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the JSON to this file as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare predicted latency with frames really sent through a broker, plan by plan, on this machine.

    Starts a broker, a recorder, an edge worker and one device of its own; tells the device each plan by a retained
    decision and times its frames. A prediction knows nothing but the profiles and what the device reported before.

    Example: splitfleet policy calibrate --uplink-mbps 5.85 --frames 20 --out calibration.json
    """
    import json
    import tempfile

    from policy.costs import CostModel
    from tools.calibration_plan import check_covered, choose_plans, emulated, models_to_use, predict, profiles_to_use
    from tools.calibration_report import document, figures, show, summarise_plans
    from tools.calibration_site import BoardSetup, CalibrationSite
    from tools.output import check_writable, print_json, progress_bar
    from tools.shaping import symmetric

    check_writable(out)
    with progress_bar() as progress:
        catalog, store = models_to_use(models, progress)
        chosen = choose_plans(catalog, plans)
        machine, edge = profiles_to_use(profile, edge_profile, catalog, chosen, progress)
        board, model = emulated(machine, slowdown), CostModel(catalog, edge)
        check_covered(model, board, chosen)
        setup = BoardSetup(store, board, fps, None if uplink_mbps is None else symmetric(uplink_mbps, delay_ms))
        # The folder stays when something fails: the logs in it say what.
        folder = Path(tempfile.mkdtemp(prefix="splitfleet-calibrate-"))
        with CalibrationSite(folder, setup, embedded=embedded) as site:
            progress("waiting for device and worker", 0, len(chosen))
            site.wait_ready()
            runs = []
            for done, plan in enumerate(chosen):
                progress(str(plan), done, len(chosen))
                runs.append(site.run(plan, frames))
            account = site.finish()
        shutil.rmtree(folder)
    rows = [figures(run, predict(model, setup, run.plan, run.before), board, edge) for run in runs]
    told = document(_conditions(setup, site.broker, runs), rows, summarise_plans(rows), account)
    if out is not None:
        out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json(told)
    else:
        show(told, rows)


def _conditions(setup: BoardSetup, broker: str, runs: Sequence[PlanRun]) -> Mapping[str, Any]:
    """Return what held during the run; of the link, what the device believed."""
    from statistics import median

    board, link = setup.profile, setup.link
    return {
        "broker": broker,
        "board": board.board,
        "slowdown": board.slowdown,
        "energy_source": board.energy_source,
        "frame_overhead_ms": board.frame_overhead_ms,
        "fps": setup.fps,
        "emulated_uplink_bps": None if link is None else link.uplink_bps,
        "emulated_delay_ms": None if link is None else link.delay_ms,
        "believed_uplink_bps": median(run.before.uplink_bps or 0.0 for run in runs),
        "believed_rtt_ms": median(run.before.rtt_ms or 0.0 for run in runs),
    }
