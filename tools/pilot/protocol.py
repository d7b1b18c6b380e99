"""Runs the protocol on a site: listen, then let the arms take turns by rules that end by themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from policy.rules import DEFAULTS, MOST_TRIAL_S
from tools.operator_link import NotReached, Operator
from tools.pilot.hearing import Hearing, Record
from tools.pilot.kpi import PilotError
from tools.pilot.schedule import CURRENT, Block, Stretch
from tools.policy_rules import with_time_left
from tools.supervisor import SupervisorError
from wire.channels import RULES
from wire.codec import encode
from wire.messages import Rules

TICK_S = 0.2
PATIENCE_S = 60.0
"""Until the site has been heard: a service may speak of itself as rarely as it likes, devices may be starting."""
CONFIRM_S = 20.0
"""Until the decision service says that an arm decides."""
MARGIN_S = 20.0
"""By which a trial outlasts its block: should the pilot die, the site's own policy is back that soon."""
RETURN_S = 20.0
"""How long taking the rules back is tried."""
SETTLE_S = 20.0
"""How long the last frames are waited for."""
STOPPED_SETTLE_S = 5.0
"""The same, after Ctrl-C."""

Show = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How long everything takes."""

    rounds: int = 4
    block_s: float = 60.0
    wash_out_s: float = 10.0
    """The first seconds of a block, left out: decisions take effect, hysteresis waits."""
    listen_s: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.wash_out_s < self.block_s:
            raise PilotError(
                f"a block of {self.block_s:g} s with a wash-out of {self.wash_out_s:g} s leaves nothing to measure: "
                "take a longer --block or a shorter --wash-out"
            )
        if self.block_s + CONFIRM_S + MARGIN_S > MOST_TRIAL_S:
            raise PilotError(f"a block of {self.block_s:g} s is too long: allowed is up to a day, less a minute")


class Interrupted(Exception):
    """The pilot ends here; what was measured so far is told."""


class Pilot:
    """One run. ``check`` raises ``SupervisorError`` where the site is ours and one of its processes has ended."""

    def __init__(
        self,
        operator: Operator,
        protocol: Protocol,
        show: Show,
        stop: threading.Event,
        check: Callable[[], None] = lambda: None,
        expected: int = 1,
    ) -> None:
        self.record = Record()
        self._operator = operator
        self._protocol = protocol
        self._show = show
        self._stop = stop
        self._check = check
        self._expected = expected
        self._own: Rules | None = None
        self._rev = 0
        self._trying: str | None = None
        self._hearing = Hearing(operator, self.record)
        self._blocks = 0

    def run(self, blocks: Sequence[Block]) -> Record:
        """Listen, let the arms take turns, take the rules back, wait for the last frames.

        Raises ``PilotError`` where it cannot begin; what happens later ends it, and the record says so.
        """
        before = self._operator.rules.get(DEFAULTS, Rules(0))
        self._rev = before.rev
        kept = with_time_left(before, time.time_ns() // 1_000_000)
        if kept.policy is not None:
            raise PilotError(
                f"policy '{kept.policy}' is on trial already: wait for its end, or end it with "
                "splitfleet policy rules clear --all"
            )
        says_nothing = replace(kept, rev=0, at_ms=0, policy=None, policy_for_s=None) == Rules(0)
        self._own = None if says_nothing else replace(kept, policy=None, policy_for_s=None)
        self._blocks = len(blocks)
        self._listen()
        try:
            for block in blocks:
                self._play(block)
        except Interrupted as error:
            self.record.interrupted = str(error)
        finally:
            self._give_back()
        self._settle()
        return self.record

    # -- the parts of the protocol ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        began_s = time.monotonic()
        record = self.record
        try:
            while True:
                elapsed_s = time.monotonic() - began_s
                present = record.profile.present
                heard = [name for name in present if record.book.is_told_until(name, began_s)]
                missing = [
                    *(["the decision service"] if self._hearing.deciding is None else []),
                    *(["devices"] if len(present) < self._expected else []),
                    *(["outcomes of frames"] if not heard else []),
                ]
                if elapsed_s >= self._protocol.listen_s and not missing and len(heard) == len(present):
                    break
                if elapsed_s >= max(PATIENCE_S, self._protocol.listen_s):
                    if not missing:
                        break
                    raise PilotError(f"nothing was heard of {' and '.join(missing)}: is everything running?")
                self._wait(f"listening to {len(present)} devices", TICK_S)
        except Interrupted as error:
            raise PilotError(f"it ended before the first block: {error}") from error
        assert self._hearing.deciding is not None, "it was heard"
        record.policy = self._hearing.deciding

    def _play(self, block: Block) -> None:
        protocol, arm = self._protocol, block.arm
        name = self.record.policy if arm == CURRENT else arm
        what = (
            f"round {block.round + 1} of {protocol.rounds}, block {block.number + 1} of {self._blocks}: {arm} decides"
        )
        began_s = from_s = time.monotonic()
        until_s = began_s
        try:
            self._set(arm)
            self._confirm(name, what, block)
            from_s = time.monotonic() + protocol.wash_out_s
            until_s = from_s - protocol.wash_out_s + protocol.block_s
            while (now_s := time.monotonic()) < until_s:
                self._wait(f"{what}{' (wash-out)' if now_s < from_s else ''}", until_s - now_s, block)
                if self._hearing.deciding != name:
                    raise Interrupted(f"'{self._hearing.deciding}' decides, not '{name}': who changed the rules?")
        except (Interrupted, NotReached) as error:
            now_s = time.monotonic()
            self.record.stretches.append(Stretch(block, began_s, min(from_s, now_s), now_s, is_whole=False))
            raise Interrupted(str(error)) from error
        self.record.stretches.append(Stretch(block, began_s, from_s, until_s))

    def _confirm(self, name: str, what: str, block: Block) -> None:
        """Wait until the service says who decides; it does so at once when that changes."""
        deadline_s = time.monotonic() + CONFIRM_S
        while self._hearing.deciding != name:
            refusal = self._hearing.refusal(self._rev)
            if refusal or time.monotonic() >= deadline_s:
                why = refusal or "is it of this release, and the only one?"
                raise Interrupted(f"the decision service does not let '{name}' decide: {why}")
            self._wait(f"{what} (not yet)", self._protocol.block_s, block)

    def _settle(self) -> None:
        """Wait until every device that still speaks has told a frame from after the end."""
        end_s = self.record.stretches[-1].until_s if self.record.stretches else time.monotonic()
        patience_s = STOPPED_SETTLE_S if self._stop.is_set() else SETTLE_S
        deadline_s = time.monotonic() + patience_s
        late = [name for name in self.record.profile.present if not self.record.book.is_told_until(name, end_s)]
        while late and (left_s := deadline_s - time.monotonic()) > 0:
            self._show("waiting for the last frames", round(patience_s - left_s), round(patience_s))
            self._hearing.take(TICK_S)
            late = [name for name in late if not self.record.book.is_told_until(name, end_s)]
        if late:
            some = ", ".join(late[:5]) + (" …" if len(late) > 5 else "")
            self.record.notes.append(f"{len(late)} devices had not told their last frames by the end: {some}")

    # -- rules -----------------------------------------------------------------------------------------------------

    def _set(self, arm: str) -> None:
        if arm == CURRENT:
            self._say(self._own)
        else:
            for_s = self._protocol.block_s + CONFIRM_S + MARGIN_S
            self._say(replace(self._own or Rules(0), policy=arm, policy_for_s=for_s))

    def _say(self, rules: Rules | None) -> None:
        self._rev += 1
        self._trying = rules.policy if rules else None
        told = rules and replace(rules, rev=self._rev, at_ms=time.time_ns() // 1_000_000)
        self._operator.say(DEFAULTS, encode(RULES, told) if told else b"")

    def _give_back(self) -> None:
        """Leave the rules as they were found; try for a while where the broker is away.

        What somebody else has set meanwhile stays, without the policy that we put on trial.
        """
        theirs = self._operator.rules.get(DEFAULTS, Rules(0))
        if theirs.rev > self._rev:
            if theirs.policy != self._trying:
                return
            self._own, self._rev = replace(theirs, policy=None, policy_for_s=None), theirs.rev
        deadline_s = time.monotonic() + RETURN_S
        while True:
            try:
                self._say(self._own)
                return
            except NotReached as error:
                if time.monotonic() >= deadline_s:
                    self.record.notes.append(
                        f"the rules could not be taken back ({error}): a policy on trial ends by itself within "
                        f"{self._protocol.block_s + CONFIRM_S + MARGIN_S:.0f} s, and splitfleet policy rules clear "
                        "--all ends it at once"
                    )
                    return

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _wait(self, what: str, left_s: float, block: Block | None = None) -> None:
        """Let a moment pass; raises ``Interrupted`` where there is no going on."""
        if self._stop.is_set():
            raise Interrupted("it was stopped")
        try:
            self._check()
        except SupervisorError as error:
            raise Interrupted(str(error)) from error
        if block is not None:
            block_s = self._protocol.block_s
            done_s, total_s = block_s * (block.number + 1) - max(left_s, 0.0), block_s * self._blocks
            minutes, seconds = divmod(round(total_s - done_s), 60)
            self._show(f"{what}, {minutes}:{seconds:02d} left", round(done_s), round(total_s))
        else:
            self._show(what, 0, 1)
        self._hearing.take(min(TICK_S, max(left_s, 0.01)))
        if self._hearing.gone:
            raise Interrupted(f"the broker is gone: {self._hearing.gone}")
        if self._operator.rules.get(DEFAULTS, Rules(0)).rev > self._rev:
            raise Interrupted("somebody else has set rules for every device")
        silent_s = self._hearing.silent_s()
        if silent_s is not None:
            raise Interrupted(f"the decision service has said nothing for {silent_s:.0f} s: is it running?")
