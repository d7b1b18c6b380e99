"""Choosing among allowed actions only, in plain numpy; the learner's TensorFlow twin must agree with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy.errors import PolicyError

NEVER = np.float32(-1e30)
"""Logit of what is not allowed: far enough below any other for a probability of exactly 0, and no NaN on the way."""


def check_allowed(allowed: NDArray[np.bool_]) -> None:
    """Raise ``PolicyError`` unless every row of ``allowed`` [..., A] leaves at least one action."""
    if not (rows := allowed.any(-1)).all():
        where = tuple(int(i) for i in np.argwhere(~rows)[0])
        raise PolicyError(f"row {where} allows no action: a mask must leave at least one")


def masked_log_softmax(logits: NDArray[np.float32], allowed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return log-probabilities [..., A]; ``NEVER`` (or less) where not allowed. Every row must allow an action."""
    check_allowed(allowed)
    kept = np.where(allowed, logits, NEVER)
    kept -= kept.max(-1, keepdims=True)
    return np.asarray(kept - np.log(np.exp(kept).sum(-1, keepdims=True)), np.float32)


def masked_softmax(logits: NDArray[np.float32], allowed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return probabilities [..., A] that sum to 1, exactly 0 where not allowed. Every row must allow an action."""
    return np.exp(masked_log_softmax(logits, allowed))


def sample(logits: NDArray[np.float32], allowed: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int32]:
    """Draw one action per row of [..., A] with its probability (Gumbel's trick: one pass, no cumulative sums)."""
    check_allowed(allowed)
    noise = rng.random(logits.shape, dtype=np.float32)
    # Uniform noise of exactly 0 would make an infinity that even a forbidden action could not be told from.
    gumbel = -np.log(-np.log(np.maximum(noise, np.float32(1e-38))))
    return np.asarray(np.where(allowed, logits + gumbel, NEVER).argmax(-1), np.int32)


def best(logits: NDArray[np.float32], allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the likeliest allowed action per row of [..., A]."""
    check_allowed(allowed)
    return np.asarray(np.where(allowed, logits, NEVER).argmax(-1), np.int32)
