"""The commands by which a policy learns from its site: compare, export, promote, status, rollback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tools.spans import milliseconds

if TYPE_CHECKING:
    from policy.site_periods import Knowledge

Store = Annotated[Path, typer.Option("--store", help="The recorder's store (SQLite); it may be in use.")]
Since = Annotated[str, typer.Option("--since", help="How far back from its newest point, such as 90s, 30m, 24h, 7d.")]
Settings = Annotated[
    Path | None, typer.Option("--settings", help="The decision service's file: weights, deadlines, models, profiles.")
]
Models = Annotated[Path | None, typer.Option("--models", help="Folder of model folders [every version].")]
Profiles = Annotated[
    Path | None, typer.Option("--profiles", help="Folder of profiles with edge.json [those of this machine].")
]
Folder = Annotated[Path, typer.Option("--state", help="The promotion folder of the decision service's settings.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def compare(
    store: Store,
    since: Since = "1h",
    settings: Settings = None,
    models: Models = None,
    profiles: Profiles = None,
    as_json: Json = False,
) -> None:
    """Compare a policy in shadow with the acting one: predicted reward, and how far predictions may be trusted.

    Example: splitfleet policy compare --store recorder.sqlite --since 1h --settings policy.toml
    """
    import numpy as np

    from policy.comparison import BLOCK_MS, trust
    from policy.comparison import compare as compare_rows
    from policy.errors import PolicyError
    from policy.site_periods import collect
    from policy.site_record import SiteRecord
    from tflite_models.catalog import ModelsError
    from tflite_models.profile import ProfileError

    measured, why_not = None, ""
    with SiteRecord(store) as record:
        since_ms = record.newest_ms() - milliseconds(since)
        rows = record.rows("shadow", since_ms)
        found = compare_rows(rows, np.random.default_rng(0))
        try:
            measured = trust(rows, collect(record, _knowledge(settings, models, profiles), since_ms, BLOCK_MS))
            why_not = "" if measured else "no frames of devices with a profile in that time"
        except (PolicyError, ModelsError, ProfileError) as error:
            if settings or models or profiles:
                raise
            why_not = str(error)
    if as_json:
        from dataclasses import asdict

        from tools.output import print_json

        print_json(
            {
                "modelled": True,
                "comparisons": [asdict(one) for one in found],
                "acting_predicted_against_measured": asdict(measured) if measured else {"missing": why_not},
            }
        )
        return
    from tools.policy_site_view import print_comparison, print_trust

    for one in found:
        print_comparison(one)
    print_trust(measured, why_not)


def export(
    store: Store,
    out: Annotated[Path, typer.Option("--out", help="File to write (.npz).")],
    since: Since = "24h",
    period_s: Annotated[float, typer.Option("--period", min=0.1, max=3600, help="Seconds per transition.")] = 1.0,
    settings: Settings = None,
    models: Models = None,
    profiles: Profiles = None,
    as_json: Json = False,
) -> None:
    """Write what a site observed, decided and measured, by device and period, for fine-tuning a policy on it.

    Example: splitfleet policy export --store recorder.sqlite --out site.npz --since 24h --settings policy.toml
    """
    import numpy as np

    from policy.site_periods import collect
    from policy.site_record import SiteRecord
    from policy.transitions import save_periods
    from tools.output import check_writable, console, print_json

    check_writable(out)
    with SiteRecord(store) as record:
        since_ms = record.newest_ms() - milliseconds(since)
        site = collect(record, _knowledge(settings, models, profiles), since_ms, round(1000 * period_s))
    save_periods(site, out)
    figures = site.figures
    seen = figures["frames"] > 0
    rewards = figures["reward"][np.isfinite(figures["reward"])]
    summary = {
        "file": str(out),
        "devices": len(site.devices),
        "periods": site.periods,
        "period_s": site.period_ms / 1000,
        "transitions": int(seen.sum()),
        "frames": int(figures["frames"].sum()),
        "without_reward": int((seen & np.isnan(figures["reward"])).sum()),
        "uplink_measured": float(np.isfinite(figures["uplink_bps"]).mean()),
        "reward": float(rewards.mean()) if len(rewards) else None,
    }
    if as_json:
        print_json(summary)
        return
    console().print(
        f"{out}: {summary['transitions']:,} transitions of {summary['devices']} devices "
        f"({summary['periods']:,} periods of {summary['period_s']:g} s), {summary['frames']:,} frames, "
        f"measured reward {f'{rewards.mean():.3f}' if len(rewards) else 'unknown'}"
    )
    if summary["without_reward"]:
        console().print(f"{summary['without_reward']:,} of them without reward: their device class has no profile")


def promote(
    candidate: Annotated[Path, typer.Argument(help="Weights (.npz) of splitfleet policy train.")],
    state: Folder,
    stages: Annotated[str, typer.Option("--stages", help="Percentages of the devices; the last is 100.")] = "10,50,100",
    margin: Annotated[float, typer.Option("--margin", help="Loss of reward per frame that is put up with.")] = 0.02,
    min_minutes: Annotated[float, typer.Option("--min-minutes", help="Each stage lasts at least so long.")] = 10.0,
    max_hours: Annotated[float, typer.Option("--max-hours", help="A stage that shows nothing by then ends.")] = 4.0,
    min_frames: Annotated[int, typer.Option("--min-frames", help="Per group and stage.")] = 200,
) -> None:
    """Promote a candidate in stages; the decision service steps back by itself when the measured reward falls.

    The candidate is copied, and the running service is asked to begin. It first takes half an hour of measured rewards
    to compare with (less where it has run for longer).

    Example: splitfleet policy promote tuned.npz --state promotion --stages 10,50,100 --margin 0.02
    """
    import time

    from policy.actor import load_actor
    from policy.errors import PolicyError
    from policy.promotion import Terms
    from policy.promotion_desk import ask_promotion
    from tools.output import console

    try:
        shares = tuple(float(part) / 100 for part in stages.split(","))
    except ValueError:
        raise PolicyError(f"--stages {stages}: write percentages, such as 10,50,100") from None
    terms = Terms(shares, margin, min_minutes * 60, min_frames, max_hours * 3600)
    load_actor(candidate)  # what the service could not use is told here
    request = ask_promotion(state, candidate, terms, time.time())
    console().print(f"asked to promote {request.candidate}; watch it with splitfleet policy status --state {state}")


def status(state: Folder, as_json: Json = False) -> None:
    """Show where a promotion is: stage, devices, measured rewards with their interval, and what happens next.

    Example: splitfleet policy status --state promotion
    """
    import time
    from dataclasses import asdict

    from policy.promotion_desk import load_promotion, waiting_request
    from tools.output import console, print_json
    from tools.policy_site_view import next_words, print_promotion, state_json

    promotion, waiting = load_promotion(state), waiting_request(state)
    if as_json:
        print_json(
            {
                "state": state_json(promotion) if promotion else None,
                "next": next_words(promotion, waiting, time.time()),
                "request": asdict(waiting) if waiting else None,
            }
        )
        return
    if promotion is not None:
        print_promotion(promotion)
    console().print(next_words(promotion, waiting, time.time()))


def rollback(
    state: Folder, reason: Annotated[str, typer.Option("--reason", help="Kept with the state, in words.")] = ""
) -> None:
    """Take a candidate back from all devices, or undo a finished promotion.

    Example: splitfleet policy rollback --state promotion --reason "cameras moved"
    """
    import time

    from policy.promotion_desk import ask_rollback
    from tools.output import console

    ask_rollback(state, reason, time.time())
    console().print(f"asked to step back; see splitfleet policy status --state {state}")


def _knowledge(settings: Path | None, models: Path | None, profiles: Path | None) -> Knowledge:
    """Put together catalog, profiles and rules: from the service's settings, where given, else from this machine."""
    from policy.costs import CostModel
    from policy.errors import PolicyError
    from policy.rules import SiteRules
    from policy.shelf import ProfileShelf
    from policy.site_periods import Knowledge
    from tflite_models.catalog import Catalog, load_catalog
    from tflite_models.profile import load_edge_profile
    from tools.home import profiles_folder
    from tools.prepared import every_version

    rules, edge = SiteRules(), None
    if settings is not None:
        from policy.service import PolicySettings
        from wire.settings import load_settings

        told = load_settings(PolicySettings, settings)
        rules = SiteRules(told.defaults, told.devices)
        edge = None if profiles else Path(told.edge_profile)
        models, profiles = models or Path(told.models), profiles or Path(told.profiles)
    folder = profiles or profiles_folder()
    edge = edge or folder / "edge.json"
    if not edge.exists():
        raise PolicyError(f"there is no {edge}: name the service's file with --settings, or the profiles")
    catalog = load_catalog(models) if models else Catalog({name: there for name, (_, there) in every_version().items()})
    return Knowledge(CostModel(catalog, load_edge_profile(edge)), ProfileShelf(folder), rules)
