"""``python -m policy.learn``: trains the fleet's policy in a process of its own; tells progress as lines of JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from policy.actor import Actor, load_actor
from policy.errors import PolicyError
from policy.learn.runtime import prepare_tensorflow

TELL_EVERY_S = 0.5
FINE_TUNING = 0.25
"""Share of the usual learning rate where training goes on from weights that are good already."""


def main(arguments: list[str] | None = None) -> int:
    """Train and save; return 2 for what cannot be used, 130 after Ctrl-C (the checkpoint stays)."""
    options = _parser().parse_args(arguments)
    prepare_tensorflow()
    try:
        actor = _train(options)
        actor.save(options.out)
    except PolicyError as error:
        print(f"splitfleet: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"splitfleet: cannot write {options.out}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    _tell("result", {"weights": str(options.out), **actor.about})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m policy.learn", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--families", default="", help="with commas between them; default: those of the recipe")
    parser.add_argument("--lesson", help="learn this scenario alone, as it is evaluated")
    parser.add_argument("--begin", type=Path, help="weights to train further")
    parser.add_argument("--site", type=Path, help="a site's recording, learned beside the simulation")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--about", default="{}", help="JSON kept with the weights")
    return parser


def _train(options: argparse.Namespace) -> Actor:
    from dataclasses import replace

    from policy.learn.recipe import FAMILIES, Lesson, of_site, standard
    from policy.learn.train import settings, train
    from policy.simulation.scenario import load_scenario

    families = tuple(options.families.split(",")) if options.families else FAMILIES
    lessons = standard(families)
    about: dict[str, Any] = {**json.loads(options.about), "families": list(families)}
    if options.lesson:
        lessons = (Lesson(load_scenario(options.lesson)),)
        about = {**about, "families": list(lessons[0].scenario.families), "lesson": options.lesson}
    chosen = settings(options.seed)
    if options.begin is not None:
        chosen = replace(chosen, learning_rate=chosen.learning_rate * FINE_TUNING)
        about["begun_from"] = dict(load_actor(options.begin).about)
    if options.site is not None:
        site = of_site(_recording(options.site))
        # In turn with the simulation's lessons, so that nothing learned there is lost.
        lessons = tuple(one for i, lesson in enumerate(lessons) for one in (lesson, site[i % len(site)]))
        about["site"] = options.site.name
    begin = load_actor(options.begin) if options.begin else None
    return train(
        lessons, chosen, options.updates, begin=begin, checkpoint=options.checkpoint, log_folder=options.log,
        tell=_teller(options.seed), about=about,
    )  # fmt: skip


def _recording(path: Path) -> Any:
    from policy.simulation.replay import recording
    from policy.transitions import site_traces

    found = site_traces(path)
    return recording(found.uplink_bps, found.rtt_ms, found.fps, found.tail_factor)


def _teller(seed: int) -> Callable[[Any], None]:
    told_at = -TELL_EVERY_S

    def tell(now: Any) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= TELL_EVERY_S or now.update >= now.updates:
            told_at = time.monotonic()
            facts = {
                "what": f"seed {seed}: {now.lesson}", "done": now.update, "total": now.updates, "reward": now.smoothed,
                "entropy": now.entropy, "steps_per_s": now.decisions / max(now.seconds, 1e-9),
            }  # fmt: skip
            _tell("progress", {**facts, "details": asdict(now)})

    return tell


def _tell(kind: str, facts: Mapping[str, Any]) -> None:
    print(json.dumps({kind: facts}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
