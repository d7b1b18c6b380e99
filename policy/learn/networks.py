"""Networks that the learner can train; the actor's twin in plain numpy beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.float32]]


class MLPActorCritic:
    """Actor and critic in trunks of their own, tanh, on one flat observation [B, features] (float32)."""

    def __init__(
        self, features: int, heads: int, actions: int, *, hidden: tuple[int, ...] = (64, 64), seed: int = 0
    ) -> None:
        self.features, self.heads, self.actions = features, heads, actions
        self.layers = len(hidden) + 1
        rng = np.random.default_rng(seed)
        self.variables: dict[str, tf.Variable] = {}
        # A last layer next to zero makes the first policy uniform (Andrychowicz et al. 2021, section 3.2).
        for trunk, outputs, last_gain in (("actor", heads * actions, 0.01), ("critic", 1, 1.0)):
            sizes = (features, *hidden, outputs)
            for layer in range(self.layers):
                gain = last_gain if layer == self.layers - 1 else np.sqrt(2.0)
                kernel = orthogonal(sizes[layer], sizes[layer + 1], gain, rng)
                self.variables[f"{trunk}/{layer}/kernel"] = tf.Variable(kernel)
                self.variables[f"{trunk}/{layer}/bias"] = tf.Variable(np.zeros(sizes[layer + 1], np.float32))

    @property
    def input_spec(self) -> tf.TensorSpec:
        """One tensor [B, features]."""
        return tf.TensorSpec([None, self.features], tf.float32)

    def logits(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return [B, heads, actions]."""
        return tf.reshape(self._trunk("actor", inputs), [-1, self.heads, self.actions])

    def value(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return [B]."""
        return self._trunk("critic", inputs)[:, 0]

    def numpy_logits(self, weights: Weights, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what ``logits`` would under ``weights``, without TensorFlow's cost per call."""
        return self._numpy_trunk("actor", weights, inputs).reshape(-1, self.heads, self.actions)

    def numpy_value(self, weights: Weights, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what ``value`` would under ``weights``."""
        return self._numpy_trunk("critic", weights, inputs)[:, 0]

    def _trunk(self, trunk: str, x: tf.Tensor) -> tf.Tensor:
        for layer in range(self.layers):
            x = x @ self.variables[f"{trunk}/{layer}/kernel"] + self.variables[f"{trunk}/{layer}/bias"]
            x = tf.tanh(x) if layer < self.layers - 1 else x
        return x

    def _numpy_trunk(self, trunk: str, weights: Weights, x: NDArray[np.float32]) -> NDArray[Any]:
        for layer in range(self.layers):
            x = x @ weights[f"{trunk}/{layer}/kernel"] + weights[f"{trunk}/{layer}/bias"]
            x = np.tanh(x) if layer < self.layers - 1 else x
        return x


def orthogonal(rows: int, columns: int, gain: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return [rows, columns] whose shorter side is orthonormal times ``gain`` (Saxe et al. 2014)."""
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))  # without it the draw is not uniform over rotations
    return np.asarray(gain * (q if rows >= columns else q.T), np.float32)
