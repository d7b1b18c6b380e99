"""Rules that look at no load: chance, everything on the device, everything on the edge."""

from __future__ import annotations

import numpy as np

from policy.batch import Index, Mask
from policy.references.agent import Memoryless
from policy.references.starts import alone_on_edge
from policy.simulation.hardware import Hardware
from policy.simulation.world import Seen, World


class Random(Memoryless):
    """Any allowed plan, anew each period."""

    name = "random"

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Draw."""
        allowed = seen.batch.allowed
        return np.asarray(np.argmax(np.where(allowed, rng.random(allowed.shape, np.float32), np.float32(-1)), axis=-1))


class LocalLight(Memoryless):
    """The version that a device computes fastest, whole on the device."""

    name = "local_light"

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Take the local plan of least time."""
        return np.asarray(np.argmin(np.where(_local(world), world.hardware.compute_ms, np.inf), axis=-1))


class LocalHeavy(Memoryless):
    """The most accurate version, whole on the device; of equals the fastest."""

    name = "local_heavy"

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Take the local plan of greatest accuracy."""
        accuracy = np.where(_local(world), world.hardware.accuracy, -np.inf)
        best = accuracy >= accuracy.max(axis=-1, keepdims=True) - 1e-9
        return np.asarray(np.argmin(np.where(best, world.hardware.compute_ms, np.inf), axis=-1))


def _local(world: World) -> Mask:
    return world.hardware.local & world.hardware.allowed


class Remote(Memoryless):
    """The frame itself goes to the edge, in one encoding; the version is each device's best on an idle edge.

    Encodings are named in order of preference: a site may lack one, because another plan beats it in everything. A site
    that lacks them all sends its input in whatever encoding it has.
    """

    def __init__(self, name: str, codecs: tuple[str, ...]) -> None:
        self.name = name
        self._codecs = codecs
        self._plans: Mask

    def begin(self, world: World) -> None:
        """Find the plans that ship the input so."""
        self._plans = shipping(world.hardware, self._codecs)

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Take the best of them."""
        return alone_on_edge(seen.batch, self._plans & seen.batch.allowed)


def shipping(hardware: Hardware, codecs: tuple[str, ...]) -> Mask:
    """Return the plans [F, N, P] that ship the input in the first of the encodings that the site has, else in any."""
    mask = np.zeros(hardware.allowed.shape, bool)
    for f, plans in enumerate(hardware.sets):
        used = [name.rpartition("/")[2] for name in plans.names]
        codec = next(
            (c for c in codecs if any(u == c and s for u, s in zip(used, plans.ships_input, strict=True))), None
        )
        for p, (name, ships) in enumerate(zip(used, plans.ships_input, strict=True)):
            mask[f, :, p] = ships and codec in (None, name)
    return mask
