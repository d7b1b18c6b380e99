"""The learner: its losses and gradients worked out by hand, its masks, its seeds, and going on from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tensorflow as tf

from policy.errors import PolicyError
from policy.learn.a2c import A2C, Batch, masked_log_softmax
from policy.learn.masking import masked_softmax
from policy.learn.networks import MLPActorCritic, orthogonal
from policy.learn.settings import A2CSettings
from tests.policy.learn.tables import Table, batch, table

SETTINGS = A2CSettings(entropy_start=0.3, entropy_end=0.1, value_coef=0.7, clipnorm=1e9)


def test_one_step_has_the_losses_and_the_gradient_of_the_formula() -> None:
    logits, value = np.array([0.5, -1.0, 2.0, 0.3]), 0.4
    one = Batch(
        {"state": np.array([0])},
        np.array([[1]], np.int32),
        np.array([[[True, True, False, True]]]),
        np.array([2.0], np.float32),
        np.array([1.5], np.float32),
        known_values=np.array([[[0.1, -0.2, 9.0, 0.4]]], np.float32),
    )
    told = A2C(Table(logits.astype(np.float32)[None, None], np.array([value], np.float32)), SETTINGS).update(one, 0.5)

    kept, known = logits[[0, 1, 3]], np.array([0.1, -0.2, 0.4])
    p = np.exp(kept) / np.exp(kept).sum()
    entropy, expected = -(p * np.log(p)).sum(), (p * known).sum()
    assert told.policy_loss == pytest.approx(-np.log(p[1]) * 2.0, rel=1e-5)
    assert told.value_loss == pytest.approx((1.5 - 0.4) ** 2, rel=1e-5)
    assert told.entropy == pytest.approx(entropy, rel=1e-5)
    assert told.known == pytest.approx(expected, rel=1e-5)
    # Halfway between .3 and .1 the entropy weighs .2.
    by_logit = (p - np.eye(3)[1]) * 2.0 - p * (known - expected) + 0.2 * p * (np.log(p) + entropy)
    by_value = -2 * 0.7 * (1.5 - 0.4)
    assert told.grad_norm == pytest.approx(np.sqrt((by_logit**2).sum() + by_value**2), rel=1e-5)


def test_the_first_adam_step_is_the_learning_rate_against_the_gradient() -> None:
    network = table()
    learner, before = A2C(network, replace(SETTINGS, learning_rate=0.01)), network.variables["values"].numpy()
    one = batch(5)
    learner.update(
        replace(one, inputs={"state": np.array([1] * 5)}, returns=np.full(5, before[1] + 3, np.float32)), 0.0
    )
    np.testing.assert_allclose(learner.weights()["values"] - before, [0, 0.01, 0], atol=1e-5)


def test_explained_variance_is_1_for_a_perfect_critic_and_0_for_a_flat_one() -> None:
    one = replace(batch(6), inputs={"state": np.array([0, 1, 2, 0, 1, 2])}, sample_weight=None)
    values = np.array([1.0, -2.0, 0.5], np.float32)
    flat = np.zeros(3, np.float32)
    for network_values, returns, wanted in ((values, values, 1.0), (flat, values, 0.0), (values, flat + 1, 0.0)):
        network = Table(np.zeros((3, 2, 4), np.float32), network_values)
        told = A2C(network, SETTINGS).update(replace(one, returns=np.tile(returns, 2)), 0.0)
        assert told.explained_variance == pytest.approx(wanted, abs=1e-5)


def test_rows_of_weight_0_teach_nothing() -> None:
    settings = replace(SETTINGS, normalise_advantage=True)
    plain, filled = A2C(table(), settings), A2C(table(), settings)
    both = batch(11)
    assert both.sample_weight is not None and both.known_values is not None
    first = Batch(
        {"state": both.inputs["state"][:8]}, both.actions[:8], both.allowed[:8], both.advantages[:8], both.returns[:8],
        both.sample_weight[:8], both.known_values[:8],
    )  # fmt: skip
    weight = np.concatenate([both.sample_weight[:8], np.zeros(3, np.float32)])
    plain.update(first, 0.0)
    filled.update(replace(both, sample_weight=weight), 0.0)
    for name, weights in plain.weights().items():
        np.testing.assert_allclose(filled.weights()[name], weights, atol=1e-6)


def test_normalised_advantages_know_no_scale() -> None:
    one = batch(8)
    first, second = (A2C(table(), replace(SETTINGS, normalise_advantage=True)) for _ in range(2))
    told = first.update(one, 0.0), second.update(replace(one, advantages=7 * one.advantages + 3), 0.0)
    assert told[0].policy_loss == pytest.approx(told[1].policy_loss, abs=1e-4)


def test_known_values_teach_actions_that_are_never_taken() -> None:
    learner = A2C(table(states=1, heads=1), replace(SETTINGS, entropy_start=0.0, entropy_end=0.0, learning_rate=0.05))
    allowed = np.array([[[True, True, True, False]]])
    one = Batch(
        {"state": np.array([0])}, np.zeros((1, 1), np.int32), allowed, np.zeros(1, np.float32), np.zeros(1, np.float32),
        known_values=np.array([[[-0.5, 0.5, 0.0, 9.0]]], np.float32),
    )  # fmt: skip
    for _ in range(200):
        learner.update(one, 0.0)
    p = masked_softmax(learner.weights()["logits"], allowed)[0, 0]
    assert p[1] > 0.95 and p[3] == 0


def test_both_softmaxes_agree_and_stay_finite() -> None:
    rng = np.random.default_rng(3)
    for scale in (1.0, 1e4):
        logits = (scale * rng.normal(size=(50, 2, 6))).astype(np.float32)
        allowed = rng.random(logits.shape) < 0.4
        allowed[..., 1] = True
        with tf.GradientTape() as tape:
            x = tf.constant(logits)
            tape.watch(x)
            p = tf.exp(masked_log_softmax(x, tf.constant(allowed)))
            loss = tf.reduce_sum(p[..., 0])
        np.testing.assert_allclose(p, masked_softmax(logits, allowed), atol=1e-6)
        gradient = tape.gradient(loss, x).numpy()
        assert np.isfinite(gradient).all() and (gradient[~allowed] == 0).all() and (p.numpy()[~allowed] == 0).all()


def test_batches_that_cannot_be_are_refused() -> None:
    learner, one = A2C(table(), SETTINGS), batch(4)
    nothing = one.allowed.copy()
    nothing[2, 1] = False
    with pytest.raises(PolicyError, match=r"row \(2, 1\) allows no action"):
        learner.update(replace(one, allowed=nothing), 0.0)
    other = np.zeros_like(one.allowed)
    np.put_along_axis(other, (one.actions[..., None] + 1) % 4, True, -1)
    with pytest.raises(PolicyError, match="does not allow"):
        learner.update(replace(one, allowed=other), 0.0)
    with pytest.raises(PolicyError, match="update 1 is not finite"):
        learner.update(replace(one, advantages=np.full(4, np.nan, np.float32)), 0.0)


def test_the_step_is_compiled_once_whatever_the_batch() -> None:
    traced: list[int] = []

    class Counting(Table):
        def value(self, inputs: dict[str, Any]) -> tf.Tensor:
            traced.append(1)
            return super().value(inputs)

    learner = A2C(Counting(np.zeros((3, 2, 4), np.float32), np.zeros(3, np.float32)), SETTINGS)
    for step, rows in enumerate((3, 8, 1, 20)):
        learner.update(batch(rows, seed=step), step / 4)
    assert len(traced) == 1


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
def test_going_on_from_a_file_is_as_if_never_stopped(tmp_path: Path, optimiser: Literal["adam", "rmsprop"]) -> None:
    settings = replace(SETTINGS, optimiser=optimiser, clipnorm=0.5, seed=4)
    recorded = [batch(6, seed=n) for n in range(200)]

    def run(learner: A2C, numbers: range) -> list[float]:
        for n in numbers:
            learner.update(recorded[n], n / 200)
        return [float(drawn) for drawn in learner.rng.random(4)]

    straight, first = A2C(table(), settings), A2C(table(), settings)
    run(straight, range(100))
    drawn = run(straight, range(100, 200))
    run(first, range(100))
    first.save(tmp_path / "half.npz", {"world": {"step": 2**70}})
    second = A2C(table(seed=99), replace(settings, seed=5))
    assert second.restore(tmp_path / "half.npz") == {"world": {"step": 2**70}} and second.updates == 100
    assert run(second, range(100, 200)) == drawn
    for name, weights in straight.weights().items():
        assert np.array_equal(second.weights()[name], weights)
        assert not np.array_equal(first.weights()[name], weights)


def test_a_file_of_another_network_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    A2C(table(actions=5), SETTINGS).save(tmp_path / "a.npz")
    learner = A2C(table(), SETTINGS)
    before = learner.weights()
    with pytest.raises(PolicyError, match=r"a\.npz is of another network: logits is \[3, 2, 5\]"):
        learner.restore(tmp_path / "a.npz")
    with pytest.raises(PolicyError, match="choose the same optimiser"):
        A2C(table(actions=5), replace(SETTINGS, optimiser="rmsprop")).restore(tmp_path / "a.npz")
    mlp = MLPActorCritic(4, 1, 2)
    with pytest.raises(PolicyError, match="is missing"):
        A2C(mlp, SETTINGS).restore(tmp_path / "a.npz")
    assert all(np.array_equal(before[name], weights) for name, weights in learner.weights().items())


def test_the_numpy_twin_of_the_network_agrees() -> None:
    network = MLPActorCritic(5, 3, 4, hidden=(16, 8), seed=2)
    rng = np.random.default_rng(0)
    for variable in network.variables.values():
        variable.assign(rng.normal(size=variable.shape))
    weights = A2C(network, SETTINGS).weights()
    seen = rng.normal(size=(7, 5)).astype(np.float32)
    assert network.numpy_logits(weights, seen).shape == (7, 3, 4)
    np.testing.assert_allclose(network.numpy_logits(weights, seen), network.logits(tf.constant(seen)), atol=1e-4)
    np.testing.assert_allclose(network.numpy_value(weights, seen), network.value(tf.constant(seen)), atol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(3, 8), (8, 3), (5, 5)])
def test_orthogonal_matrices_are(rows: int, columns: int) -> None:
    drawn = orthogonal(rows, columns, 2.0, np.random.default_rng(0))
    short = drawn @ drawn.T if rows <= columns else drawn.T @ drawn
    np.testing.assert_allclose(short, 4 * np.eye(min(rows, columns)), atol=1e-5)
