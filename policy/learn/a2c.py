"""The learner: one compiled step of Advantage Actor-Critic for any network, its optimiser, and its checkpoints.

Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", in its synchronous form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from policy.errors import PolicyError
from policy.learn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from policy.learn.masking import NEVER, check_allowed
from policy.learn.settings import A2CSettings

_ADAM = (0.9, 0.999)
_RMSPROP_DECAY = 0.99
_EPSILON = 1e-5
"""Larger than Adam's usual 1e-8: gradients of policies are often next to nothing, and noise must not be scaled up."""


class Network(Protocol):
    """An actor and a critic. What ``inputs`` is, the network alone decides: a tensor, or a tuple or dict of them."""

    @property
    def variables(self) -> Mapping[str, tf.Variable]:
        """All that is trained, by names that checkpoints use."""

    @property
    def input_spec(self) -> Any:
        """A ``tf.TensorSpec`` per input, in the structure of ``inputs``; sizes that vary are ``None``."""

    def logits(self, inputs: Any) -> tf.Tensor:
        """Return [B, H, A]: for each of H independent decisions one logit per action."""

    def value(self, inputs: Any) -> tf.Tensor:
        """Return [B]: the expected return."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one update learns from: B decisions of H parts, each one of A actions."""

    inputs: Any
    """Arrays in the structure of the network's ``input_spec``."""
    actions: NDArray[np.int32]
    """[B, H]"""
    allowed: NDArray[np.bool_]
    """[B, H, A]; what was taken must be allowed."""
    advantages: NDArray[np.float32]
    """[B]"""
    returns: NDArray[np.float32]
    """[B]"""
    sample_weight: NDArray[np.float32] | None = None
    """[B]; 0 for rows that only fill up; default: all alike."""
    known_values: NDArray[np.float32] | None = None
    """[B, H, A]: what is known of every action at once, such as its modelled reward now, centred; default: nothing.

    Its expectation under the policy is added to the objective, so that all actions teach and not only the one taken
    (Asadi et al. 2017, "Mean Actor-Critic"). What it covers must not be in ``advantages`` again.
    """


@dataclass(frozen=True, slots=True)
class Metrics:
    """What one update tells; weighted means over the batch, before the update."""

    policy_loss: float
    value_loss: float
    entropy: float
    """Nats, summed over the parts of a decision."""
    known: float
    """Expected known value under the policy."""
    grad_norm: float
    """Before clipping."""
    explained_variance: float
    """1: the critic tells all returns; 0: no better than their mean, or all returns are alike."""


def masked_log_softmax(logits: tf.Tensor, allowed: tf.Tensor) -> tf.Tensor:
    """Return log-probabilities [..., A] as ``policy.learn.masking`` does; some action must be allowed in each row."""
    return tf.nn.log_softmax(tf.where(allowed, logits, NEVER))


class A2C:
    """Improves a network by one update after another; the same settings and batches give the same weights."""

    def __init__(self, network: Network, settings: A2CSettings) -> None:
        self.network = network
        self.settings = settings
        self.updates = 0
        self.rng = np.random.default_rng(settings.seed)
        """For drawing actions; kept in checkpoints."""
        self._variables = dict(network.variables)
        # RMSprop starts as if gradients had been large, as TensorFlow's own always did; from 0 its first steps explode.
        first = tf.ones_like if settings.optimiser == "rmsprop" else tf.zeros_like
        self._first = {name: tf.Variable(first(v), trainable=False) for name, v in self._variables.items()}
        self._second = {name: tf.Variable(tf.zeros_like(v), trainable=False) for name, v in self._variables.items()}
        parts, numbers = tf.TensorSpec([None, None, None], tf.float32), tf.TensorSpec([None], tf.float32)
        flags, taken = tf.TensorSpec([None, None, None], tf.bool), tf.TensorSpec([None, None], tf.int32)
        scalars = tf.TensorSpec([4], tf.float32)
        # A signature of its own, so that another batch size or learning rate never compiles a second step.
        signature = [network.input_spec, taken, flags, numbers, numbers, numbers, parts, scalars]
        self._step = tf.function(self._compiled, input_signature=signature, autograph=False)

    def update(self, batch: Batch, progress: float) -> Metrics:
        """Take one gradient step; ``progress`` in [0, 1] sets learning rate and entropy weight.

        Raises ``PolicyError`` where a row allows no action, a taken action was not allowed, or the loss is not finite.
        """
        check_allowed(batch.allowed)
        if not np.take_along_axis(batch.allowed, batch.actions[..., None], -1).all():
            raise PolicyError("an action was taken that its mask does not allow: record the mask it was taken under")
        rows = len(batch.actions)
        weight = np.ones(rows, np.float32) if batch.sample_weight is None else batch.sample_weight
        known = np.zeros(batch.allowed.shape, np.float32) if batch.known_values is None else batch.known_values
        done = self.updates + 1
        scalars = np.array(
            [
                self.settings.learning_rate_at(progress),
                self.settings.entropy_at(progress),
                _ADAM[0] ** done,
                _ADAM[1] ** done,
            ],
            np.float32,
        )
        told = self._step(
            tf.nest.map_structure(lambda spec, a: tf.constant(a, spec.dtype), self.network.input_spec, batch.inputs),
            tf.constant(batch.actions, tf.int32),
            tf.constant(batch.allowed, tf.bool),
            tf.constant(batch.advantages, tf.float32),
            tf.constant(batch.returns, tf.float32),
            tf.constant(weight, tf.float32),
            tf.constant(known, tf.float32),
            tf.constant(scalars),
        )
        metrics = Metrics(*told.numpy().tolist())
        if not np.isfinite(astuple(metrics)).all():
            raise PolicyError(
                f"update {done} is not finite: {metrics}; go back to a checkpoint and lower the learning rate"
            )
        self.updates = done
        return metrics

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Return a copy of the network's weights by name."""
        return {name: variable.numpy() for name, variable in self._variables.items()}

    def save(self, path: Path, extra: Mapping[str, Any] | None = None) -> None:
        """Write all that is needed to go on; ``extra`` is for the caller, such as the state of its own generators."""
        groups = {"weights": self._variables, "first": self._first, "second": self._second}
        arrays = {f"{group}/{name}": v.numpy() for group, vs in groups.items() for name, v in vs.items()}
        header = {
            "settings": asdict(self.settings),
            "updates": self.updates,
            "rng": self.rng.bit_generator.state,
            "extra": dict(extra or {}),
        }
        save_checkpoint(path, Checkpoint(arrays, header))

    def restore(self, path: Path) -> dict[str, Any]:
        """Go on from a file of ``save``; return its ``extra``.

        Raises ``PolicyError`` where network or optimiser differ; other settings may, and ours are kept.
        """
        checkpoint = load_checkpoint(path)
        header = checkpoint.header
        if header["settings"]["optimiser"] != self.settings.optimiser:
            raise PolicyError(f"{path} was trained with {header['settings']['optimiser']}: choose the same optimiser")
        groups = {"weights": self._variables, "first": self._first, "second": self._second}
        for group, variables in groups.items():
            check_shapes(path, checkpoint.below(group), variables)
        for group, variables in groups.items():
            for name, array in checkpoint.below(group).items():
                variables[name].assign(array)
        self.updates = header["updates"]
        self.rng.bit_generator.state = header["rng"]
        return dict(header["extra"])

    def _compiled(
        self,
        inputs: Any,
        actions: tf.Tensor,
        allowed: tf.Tensor,
        advantages: tf.Tensor,
        returns: tf.Tensor,
        weight: tf.Tensor,
        known: tf.Tensor,
        scalars: tf.Tensor,
    ) -> tf.Tensor:
        learning_rate, entropy_coef, *powers = tf.unstack(scalars)
        share = tf.math.divide_no_nan(weight, tf.reduce_sum(weight))
        if self.settings.normalise_advantage:
            centred = advantages - tf.reduce_sum(share * advantages)
            advantages = centred / (tf.sqrt(tf.reduce_sum(share * centred**2)) + 1e-8)
        variables = list(self._variables.values())
        with tf.GradientTape() as tape:
            log_p = masked_log_softmax(self.network.logits(inputs), allowed)
            p = tf.exp(log_p)
            # Finite where nothing is allowed, so that 0 times it is 0 in the gradient too.
            log_p = tf.where(allowed, log_p, 0.0)
            taken = tf.reduce_sum(tf.one_hot(actions, tf.shape(log_p)[-1]) * log_p, [1, 2])
            policy_loss = -tf.reduce_sum(share * taken * advantages)
            expected = tf.reduce_sum(share * tf.reduce_sum(p * known, [1, 2]))
            entropy = -tf.reduce_sum(share * tf.reduce_sum(p * log_p, [1, 2]))
            missing = returns - self.network.value(inputs)
            value_loss = tf.reduce_sum(share * missing**2)
            loss = policy_loss - expected + self.settings.value_coef * value_loss - entropy_coef * entropy
        gradients, norm = tf.clip_by_global_norm(tape.gradient(loss, variables), self.settings.clipnorm)
        self._apply(gradients, learning_rate, powers)
        spread = _variance(returns, share)
        explained = tf.where(spread > 0, 1 - tf.math.divide_no_nan(_variance(missing, share), spread), 0.0)
        return tf.stack([policy_loss, value_loss, entropy, expected, norm, explained])

    def _apply(self, gradients: list[tf.Tensor], learning_rate: tf.Tensor, powers: list[tf.Tensor]) -> None:
        """One fused operation per variable: for small networks many small ones would take most of the step."""
        for name, gradient in zip(self._variables, gradients, strict=True):
            variable, first, second = (group[name].handle for group in (self._variables, self._first, self._second))
            if self.settings.optimiser == "adam":
                tf.raw_ops.ResourceApplyAdam(
                    var=variable, m=first, v=second, beta1_power=powers[0], beta2_power=powers[1], lr=learning_rate,
                    beta1=_ADAM[0], beta2=_ADAM[1], epsilon=_EPSILON, grad=gradient,
                )  # fmt: skip
            else:
                tf.raw_ops.ResourceApplyRMSProp(
                    var=variable, ms=first, mom=second, lr=learning_rate,
                    rho=_RMSPROP_DECAY, momentum=0.0, epsilon=_EPSILON, grad=gradient,
                )  # fmt: skip


def check_shapes(source: Path, arrays: Mapping[str, NDArray[Any]], wanted: Mapping[str, tf.Variable]) -> None:
    """Raise ``PolicyError`` unless ``arrays`` are just what a network's variables hold, by name and shape."""
    found = {name: list(a.shape) for name, a in arrays.items()}
    needed = {name: v.shape.as_list() for name, v in wanted.items()}
    for name in sorted(found.keys() | needed.keys()):
        if found.get(name) != needed.get(name):
            is_, should = found.get(name, "missing"), needed.get(name, "nothing")
            raise PolicyError(f"{source} is of another network: {name} is {is_}, this network has {should} there")


def _variance(values: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(share * (values - tf.reduce_sum(share * values)) ** 2)
