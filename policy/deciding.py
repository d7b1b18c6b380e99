"""Who decides: the service's own policy, or another one on trial, which gives way by itself when its time is over."""

from __future__ import annotations

from collections.abc import Callable

from policy.choosing import Chosen
from policy.errors import PolicyError
from policy.rules import SiteRules, Trial


class Deciding:
    """Holds who decides; mask, guard, hysteresis and rules stay in force whoever does. Times are monotonic seconds."""

    def __init__(self, own: Chosen, make: Callable[[str, SiteRules], Chosen], busy: Callable[[], str]) -> None:
        """``make`` builds a guarded policy by name; ``busy`` says in words why none may be tried now, or nothing."""
        self.chosen = own
        """Who decides now."""
        self._own = own
        self._make = make
        self._busy = busy
        self._trial: Trial | None = None
        self._made: Chosen | None = None
        """For the trial that is about to begin."""

    @property
    def on_trial(self) -> bool:
        """Whether a trial lasts."""
        return self._trial is not None

    @property
    def guest(self) -> Chosen | None:
        """The policy on trial, where it is not the service's own."""
        return None if self.chosen is self._own else self.chosen

    def check(self, trial: Trial, rules: SiteRules, now_s: float) -> None:
        """Raise ``PolicyError`` where a trial cannot begin; one that is over, or runs already, harms nobody."""
        if now_s >= trial.until_s or trial == self._trial:
            return
        why = self._busy()
        if why:
            raise PolicyError(f"policy = '{trial.policy}': {why}")
        self._made = self._own if trial.policy == self._own.name else self._make(trial.policy, rules)

    def turn(self, wanted: Trial | None, rules: SiteRules, now_s: float) -> bool:
        """Begin, change or end the trial as rules and time have it; return whether anything changed.

        Raises ``PolicyError``, once, where it cannot begin; the service's own policy then decides.
        """
        trial = None if wanted is None or now_s >= wanted.until_s else wanted
        if trial == self._trial:
            return False
        self._trial, self.chosen, made = trial, self._own, self._made
        self._made = None
        if trial is not None and trial.policy != self._own.name:
            self.chosen = made if made is not None and made.name == trial.policy else self._make(trial.policy, rules)
        return True
