"""A network small enough to work out by hand: one row of logits and one value per state."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from policy.learn.a2c import Batch


class Table:
    """Logits [states, H, A] and values [states]; its input is a dict, as any network may choose."""

    def __init__(self, logits: NDArray[np.float32], values: NDArray[np.float32]) -> None:
        self.variables = {"logits": tf.Variable(logits), "values": tf.Variable(values)}
        self.input_spec = {"state": tf.TensorSpec([None], tf.int32)}

    def logits(self, inputs: dict[str, Any]) -> tf.Tensor:
        return tf.gather(self.variables["logits"], inputs["state"])

    def value(self, inputs: dict[str, Any]) -> tf.Tensor:
        return tf.gather(self.variables["values"], inputs["state"])


def table(states: int = 3, heads: int = 2, actions: int = 4, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    return Table(
        rng.normal(size=(states, heads, actions)).astype(np.float32), rng.normal(size=states).astype(np.float32)
    )


def batch(rows: int, *, states: int = 3, heads: int = 2, actions: int = 4, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    taken = rng.integers(actions, size=(rows, heads)).astype(np.int32)
    allowed = rng.random((rows, heads, actions)) < 0.6
    np.put_along_axis(allowed, taken[..., None], True, -1)
    return Batch(
        {"state": rng.integers(states, size=rows)},
        taken,
        allowed,
        rng.normal(size=rows).astype(np.float32),
        rng.normal(size=rows).astype(np.float32),
        rng.random(rows).astype(np.float32),
        rng.normal(size=allowed.shape).astype(np.float32),
    )
