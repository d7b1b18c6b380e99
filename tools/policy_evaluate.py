"""The commands ``splitfleet policy evaluate`` and ``report``: how policies do in simulated sites."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from policy.evaluation.results import Results
    from policy.references.agent import Agent
    from policy.simulation.scenario import Suite

EVERY = "all"
Html = Annotated[Path | None, typer.Option("--html", help="Write a report with charts to this file.")]
Charts = Annotated[Path | None, typer.Option("--charts", help="Write the charts as SVG files into this folder.")]


def evaluate(
    suite: Annotated[str, typer.Option("--suite", help="standard (every scenario), or the name of one.")] = "standard",
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Seeds, none of which training uses.")] = 5,
    fleets: Annotated[int, typer.Option("--fleets", min=1, help="Sites per scenario and seed.")] = 8,
    agents: Annotated[str, typer.Option("--agents", help="Policies, with commas between them, or all.")] = EVERY,
    weights: Annotated[Path | None, typer.Option("--weights", help="Weights of a2c [those shipped].")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
    html: Html = None,
    charts: Charts = None,
) -> None:
    """Let policies play simulated sites, all the same ones, and tell how well each does (modelled).

    Score 0 is what random plans earn, 1 what an oracle earns that knows the future; intervals are 95 % over seeds.
    ▲ and ▼: a2c is above or below the reference by more than chance. About ten minutes for the standard suite.

    Example: splitfleet policy evaluate --suite contention_8 --agents a2c,pricing,greedy --html report.html
    """
    from policy.evaluation.results import save_json
    from policy.evaluation.runner import evaluate as play
    from policy.evaluation.runner import evaluation_seeds
    from tools.output import check_writable, progress_bar

    for path in (as_json, html):
        check_writable(path)
    chosen, players = _suite(suite), make_agents(agents, weights)
    command = ["splitfleet", "policy", "evaluate", "--suite", suite, "--seeds", str(seeds), "--fleets", str(fleets)]
    command += ["--agents", agents] if agents != EVERY else []
    command += ["--weights", str(weights)] if weights else []
    with progress_bar() as bar:
        results = play(
            chosen, players, evaluation_seeds(seeds), fleets,
            lambda now: bar(f"{now.scenario}: {now.policy}", now.done, now.of), shlex.join(command),
        )  # fmt: skip
    if as_json:
        save_json(results, as_json)
    print_results(results)
    _write(results, html, charts)


def report(
    results: Annotated[Path, typer.Argument(help="A file that evaluate wrote with --json.")],
    html: Html = None,
    charts: Charts = None,
) -> None:
    """Show the results of an evaluation again, and write the report or the charts from them.

    Example: splitfleet policy report results.json --html report.html --charts pictures
    """
    from policy.evaluation.results import load_json
    from tools.output import check_writable

    check_writable(html)
    found = load_json(results)
    print_results(found)
    _write(found, html, charts)


def make_agents(names: str, weights: Path | None) -> Mapping[str, Callable[[], Agent]]:
    """Return the policies named, ``a2c`` with weights from a file or those shipped.

    Raises ``PolicyError`` for unknown names, and for weights that are missing, broken or asked for in vain.
    """
    from policy.errors import PolicyError
    from policy.evaluation.verdicts import LEARNED
    from policy.references.registry import REFERENCES

    known = [LEARNED, *REFERENCES]
    wanted = known if names == EVERY else [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise PolicyError(f"no policy '{unknown[0]}': there are {', '.join(known)}, and {EVERY}")
    if weights is not None and LEARNED not in wanted:
        raise PolicyError(f"--weights are those of {LEARNED}, which --agents {names} leaves out")
    found: dict[str, Callable[[], Agent]] = {name: REFERENCES[name] for name in wanted if name != LEARNED}
    return {LEARNED: _learned(weights), **found} if LEARNED in wanted else found


def print_results(results: Results) -> None:
    """Print a table per scenario, and the overview where there is more than one."""
    from policy.evaluation.verdicts import DETAILS, OVERVIEW, details, label, overview
    from tools.output import console, print_table

    for scenario in results["scenarios"]:
        title = f"{scenario}: {results['titles'][scenario]} (score 1: {label(results['oracle'][scenario])})"
        print_table(f"{title}, modelled", DETAILS, details(results, scenario))
    print_table("score by scenario, modelled", OVERVIEW, overview(results))
    sites = sum(results["fleets_of"].values()) * len(results["seeds"])
    console().print(f"{sites:,} sites on {len(results['seeds'])} seeds in {results['seconds']:,.0f} s")


def _learned(weights: Path | None) -> Callable[[], Agent]:
    from policy.actor import load_actor
    from policy.errors import PolicyError
    from policy.learned import WEIGHTS
    from policy.references.learned import LearnedAgent

    path = weights or WEIGHTS
    if not path.is_file():
        raise PolicyError(
            f"there are no weights at {path}: train them with splitfleet policy train, or leave a2c out of --agents"
        )
    actor = load_actor(path)
    return lambda: LearnedAgent(actor)


def _suite(name: str) -> Suite:
    from policy.errors import PolicyError
    from policy.simulation.scenario import load_suite, names

    if name not in ("standard", *names()):
        raise PolicyError(f"no suite or scenario '{name}': there are standard, {', '.join(names())}")
    return load_suite(name)


def _write(results: Results, html: Path | None, charts: Path | None) -> None:
    if html is None and charts is None:
        return
    from policy.evaluation.report import figures, write_report

    if html is not None:
        write_report(results, html)
    if charts is not None:
        figures(results, charts)
