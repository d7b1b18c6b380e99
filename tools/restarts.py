"""When a process that died is started again: soon at first, ever more rarely while it keeps dying. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_S, LONGEST_S = 1.0, 60.0
STEADY_S = 60.0
"""A process that ran for so long begins again with the shortest pause."""


@dataclass(slots=True)
class Life:
    """What is known of one process."""

    started_s: float
    pause_s: float = FIRST_S
    restarts: int = 0
    due_s: float | None = None
    """When it is to be started again; ``None``: it runs."""
    last_words: str = ""


@dataclass(slots=True)
class Restarts:
    """Every process by name; times are monotonic seconds."""

    lives: dict[str, Life] = field(default_factory=dict)

    def started(self, name: str, now_s: float) -> None:
        """A process was started, or started again."""
        life = self.lives.setdefault(name, Life(now_s))
        if life.due_s is not None:
            life.restarts += 1
        life.started_s, life.due_s = now_s, None

    def ended(self, name: str, last_words: str, now_s: float) -> float:
        """A process ended by itself; return after how many seconds it is to be started again."""
        life = self.lives[name]
        pause_s = FIRST_S if now_s - life.started_s >= STEADY_S else life.pause_s
        life.pause_s = min(2 * pause_s, LONGEST_S)
        life.due_s, life.last_words = now_s + pause_s, last_words
        return pause_s

    def due(self, now_s: float) -> list[str]:
        """Return the processes to be started now."""
        return [name for name, life in self.lives.items() if life.due_s is not None and life.due_s <= now_s]
