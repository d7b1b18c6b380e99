"""The network of the fleet's policy: an actor that prices what plans bring, and a critic of each device's future."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from policy.actor import SHARPNESS, Actor, start
from policy.features import PLAN_FEATURES, STATE
from policy.learn.networks import orthogonal


class PlanScorer:
    """Scores any number of plans with the same weights: a plan's logit is its features times coefficients of the state.

    The inputs are states [B, S], plan features [B, P, K] and the discount [B, 1], which only the critic sees: it tells
    the sum of rewards to come, whose size depends on it.
    """

    def __init__(self, *, hidden: tuple[int, ...] = (64, 64), seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.depth = len(hidden) + 1
        self.variables: dict[str, tf.Variable] = {}
        inputs, outputs = {"actor": len(STATE), "critic": len(STATE) + 1}, {"actor": len(PLAN_FEATURES), "critic": 1}
        for trunk in ("actor", "critic"):
            sizes = (inputs[trunk], *hidden, outputs[trunk])
            for layer in range(self.depth):
                kernel = orthogonal(sizes[layer], sizes[layer + 1], np.sqrt(2.0), rng)
                # The last layers begin at zero: the first policy is the cost model's, the first critic expects nothing.
                last = layer == self.depth - 1
                self.variables[f"{trunk}/{layer}/kernel"] = tf.Variable(kernel * (0 if last else 1), dtype=tf.float32)
                self.variables[f"{trunk}/{layer}/bias"] = tf.Variable(np.zeros(sizes[layer + 1], np.float32))

    @property
    def input_spec(self) -> Any:
        """States, plan features, discount."""
        return (
            tf.TensorSpec([None, len(STATE)], tf.float32),
            tf.TensorSpec([None, None, len(PLAN_FEATURES)], tf.float32),
            tf.TensorSpec([None, 1], tf.float32),
        )

    def logits(self, inputs: Any) -> tf.Tensor:
        """Return [B, 1, P]."""
        states, features, _ = inputs
        coefficients = start() + self._trunk("actor", states)
        return SHARPNESS * tf.einsum("bpk,bk->bp", features, coefficients)[:, None]

    def value(self, inputs: Any) -> tf.Tensor:
        """Return [B]."""
        states, _, discount = inputs
        return self._trunk("critic", tf.concat([states, discount], axis=1))[:, 0]

    def actor(self, about: Mapping[str, Any]) -> Actor:
        """Return the actor as it is now, for acting and for shipping."""
        layers = tuple(
            (self.variables[f"actor/{i}/kernel"].numpy(), self.variables[f"actor/{i}/bias"].numpy())
            for i in range(self.depth)
        )
        return Actor(layers, about)

    def adopt(self, actor: Actor) -> None:
        """Take over the weights of an actor, to train it further."""
        for i, (weights, biases) in enumerate(actor.layers):
            self.variables[f"actor/{i}/kernel"].assign(weights)
            self.variables[f"actor/{i}/bias"].assign(biases)

    def worth(self, states: NDArray[np.float32], discount: float) -> NDArray[np.float32]:
        """Return what the critic expects [...] in states [..., S], by plain matrix products."""
        x = np.concatenate([states, np.full((*states.shape[:-1], 1), discount, np.float32)], axis=-1)
        for i in range(self.depth):
            x = x @ self.variables[f"critic/{i}/kernel"].numpy() + self.variables[f"critic/{i}/bias"].numpy()
            x = np.tanh(x) if i < self.depth - 1 else x
        return np.asarray(x[..., 0])

    def _trunk(self, trunk: str, x: tf.Tensor) -> tf.Tensor:
        for i in range(self.depth):
            x = x @ self.variables[f"{trunk}/{i}/kernel"] + self.variables[f"{trunk}/{i}/bias"]
            x = tf.tanh(x) if i < self.depth - 1 else x
        return x
