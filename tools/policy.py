"""The commands ``splitfleet policy …``: run the decision service, show why it decides what, judge it and teach it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tools.policy_calibrate import calibrate
from tools.policy_evaluate import evaluate, report
from tools.policy_prove import prove
from tools.policy_rules import app as rules
from tools.policy_sb3 import sb3
from tools.policy_site import compare, export, promote, rollback, status
from tools.policy_train import train

if TYPE_CHECKING:
    from policy.interface import FleetObservation, Prediction, Weights

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Run the policy that decides the plans, judge it and teach it."
)

app.add_typer(rules, name="rules")

Models = Annotated[Path | None, typer.Option("--models", help="Folder of model folders [every version].")]


@app.command(short_help="Run the decision service until Ctrl-C.")
def serve(settings: Annotated[Path, typer.Argument(help="A settings file (TOML).")]) -> None:
    """Run the decision service until Ctrl-C: it tells every device of a site which plan to follow.

    Example: splitfleet policy serve policy.toml
    """
    from policy.service import PolicySettings, run
    from tools.chosen import log_at
    from wire.settings import load_settings
    from wire.signals import stop_on_signals

    chosen = load_settings(PolicySettings, settings)
    log_at(chosen.log_level)
    run(chosen, stop_on_signals(), settings)


@app.command(short_help="Show what every plan would cost and what a policy picks.")
def explain(
    profile: Annotated[Path, typer.Option("--profile", help="Profile of the device class.")],
    edge_profile: Annotated[
        Path | None, typer.Option("--edge-profile", help="Profile of the edge worker [edge.json of the profiles].")
    ] = None,
    models: Models = None,
    uplink_mbps: Annotated[float, typer.Option("--uplink-mbps", min=0.001, help="The device's uplink.")] = 5.85,
    rtt_ms: Annotated[float, typer.Option("--rtt-ms", min=0, help="Round trip to the broker.")] = 20.0,
    fps: Annotated[float, typer.Option("--fps", min=0, help="Frames per second; 0: as fast as possible.")] = 2.0,
    deadline_ms: Annotated[float, typer.Option("--deadline-ms", min=1, help="Deadline of a frame.")] = 500.0,
    weights: Annotated[str, typer.Option("--weights", help="accuracy,latency,energy; they sum to 1.")] = (
        "0.34,0.33,0.33"
    ),
    devices: Annotated[int, typer.Option("--devices", min=1, max=1000, help="Such devices at the site.")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Interpreters at the edge; 0: no worker.")] = 1,
    private: Annotated[bool, typer.Option("--private", help="Pictures must not leave the device.")] = False,
    policy: Annotated[str, typer.Option("--policy", help="The policy to ask.")] = "a2c",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what every plan would cost a device (modelled), which plans it may be told, and what a policy picks.

    Example: splitfleet policy explain --profile pi4.json --uplink-mbps 1.1 --devices 8
    """
    import numpy as np

    from policy.baselines import FixedPlans
    from policy.costs import CostModel
    from policy.interface import DeviceObservation, EdgeObservation, FleetObservation
    from policy.mask import WORDS, mask
    from policy.registry import make_policy
    from tflite_models.catalog import Catalog, load_catalog
    from tflite_models.profile import ProfileError, load_device_profile, load_edge_profile
    from tools.home import profiles_folder
    from tools.prepared import every_version

    board, wanted = load_device_profile(profile), _weights(weights)
    edge_file = edge_profile or profiles_folder() / "edge.json"
    if not edge_file.exists():
        raise ProfileError(f"there is no {edge_file}: measure it on the edge machine with splitfleet profile edge")
    everything = Catalog({name: folder for name, (_, folder) in every_version().items()})
    catalog = load_catalog(models) if models else everything
    model = CostModel(catalog, load_edge_profile(edge_file))
    versions = frozenset(version.name for version in catalog)
    fleet = FleetObservation(
        tuple(
            DeviceObservation(
                f"device-{i + 1}", board, versions, frozenset(plan.codec for plan in model.table.plans), wanted,
                deadline_ms, fps, uplink_mbps * 1e6, rtt_ms, may_ship_input=not private,
            )
            for i in range(devices)
        ),
        EdgeObservation(1 if threads else 0, threads, versions),
    )  # fmt: skip
    costs = model.costs(fleet)
    masked = mask(fleet, costs)
    rows = [
        (str(plan), WORDS[masked.why(0, i)], costs.prediction(0, i, costs.load[0, i]) if costs.known[0, i] else None)
        for i, plan in enumerate(model.table.plans)
    ]
    choices = make_policy(policy, model, FixedPlans()).decide(fleet, np.random.default_rng(0))
    picked = Counter(str(choice.plan) for choice in choices.values())
    together = [choice.predicted for choice in choices.values()]
    _print(fleet, rows, policy, picked, together, as_json)


def _weights(text: str) -> Weights:
    from policy.errors import PolicyError
    from policy.interface import Weights

    try:
        accuracy, latency, energy = (float(part) for part in text.split(","))
    except ValueError:
        raise PolicyError(f"--weights {text}: write accuracy,latency,energy, such as 0.34,0.33,0.33") from None
    return Weights(accuracy, latency, energy)


def _print(
    fleet: FleetObservation,
    rows: list[tuple[str, str, Prediction | None]],
    policy: str,
    picked: Counter[str],
    together: list[Prediction | None],
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from tools.output import console, print_json, print_table

    rows = sorted(rows, key=lambda row: (row[1] != "allowed", -(row[2].reward if row[2] else -9.0)))
    if as_json:
        plans: list[dict[str, Any]] = [
            {"plan": plan, "mask": why, "predicted": asdict(cost) if cost else None} for plan, why, cost in rows
        ]
        print_json({"modelled": True, "plans": plans, "policy": policy, "picked": dict(picked)})
        return
    print_table(
        "one device on an idle edge, modelled",
        ["plan", "reward", "ms", "head", "tx", "wait", "tail", "mJ", "accuracy", "bytes", "may it be told"],
        [
            [
                plan, cost and cost.reward, cost and cost.latency_ms, cost and cost.head_ms, cost and cost.tx_ms,
                cost and cost.wait_ms, cost and cost.tail_ms, cost and cost.energy_mj,
                None if cost is None or cost.accuracy is None else f"{100 * cost.accuracy:.1f} %",
                cost and round(cost.bytes_mean), why,
            ]
            for plan, why, cost in rows
        ],
    )  # fmt: skip
    print_table(f"{len(fleet.devices)} such devices under '{policy}'", ["plan", "devices"], list(picked.items()))
    known = [p for p in together if p is not None]
    if known:
        mean = sum(p.latency_ms for p in known) / len(known)
        energy = sum(p.energy_mj for p in known) / len(known)
        reward = sum(p.reward for p in known) / len(known)
        console().print(f"together, modelled: {mean:.0f} ms, {energy:.0f} mJ, reward {reward:.3f} (means per device)")


for _command, _summary in (
    (calibrate, "Compare predicted latency with frames really sent on this machine."),
    (train, "Train the a2c policy in simulation, and on a site's records."),
    (evaluate, "Let policies play simulated sites and tell how well each does."),
    (report, "Show the results of an evaluation again, with charts."),
    (prove, "Prove that the learner learns, on known tasks."),
    (sb3, "Train and judge Stable-Baselines3's A2C for comparison."),
    (compare, "Compare a policy in shadow with the acting one, from a site's record."),
    (export, "Write a site's record for fine-tuning a policy on it."),
    (promote, "Try new weights on ever more devices of a running site."),
    (status, "Show where a promotion is."),
    (rollback, "Take new weights back."),
):
    app.command(short_help=_summary)(_command)
