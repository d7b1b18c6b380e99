"""Watching a training: TensorFlow works in a process of its own and tells its progress, one JSON object per line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

_FIGURES = "reward {task.fields[reward]}  entropy {task.fields[entropy]:.3f}  {task.fields[steps_per_s]:,.0f} steps/s"


def run_training(module: str, arguments: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """Run ``python -m module`` with a bar on a terminal; return what it told as results, and its exit status.

    It prints ``{"progress": {what, done, total, reward, entropy, steps_per_s}}`` and ``{"result": {…}}``; errors are
    its own to tell on stderr.
    """
    results: list[dict[str, Any]] = []
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn(_FIGURES), TimeRemainingColumn()
    )  # fmt: skip
    paper = Console(stderr=True)
    bars: dict[str, TaskID] = {}
    with (
        Progress(*columns, console=paper, transient=True, disable=not paper.is_terminal) as bar,
        # TensorFlow stays out of this process: no TensorFlow Lite runtime could be loaded after it.
        subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True) as child,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            told = json.loads(line)
            if "result" in told:
                results.append(told["result"])
            else:
                _show(bar, bars, told["progress"])
    return results, child.returncode


def _show(bar: Progress, bars: dict[str, TaskID], facts: dict[str, Any]) -> None:
    what, reward = facts["what"], facts["reward"]
    fields = {
        "reward": "–" if reward is None else f"{reward:,.2f}",
        "entropy": facts["entropy"],
        "steps_per_s": facts["steps_per_s"],
    }
    if what not in bars:
        bars[what] = bar.add_task(what, total=facts["total"], **fields)
    bar.update(bars[what], completed=facts["done"], total=facts["total"], **fields)
