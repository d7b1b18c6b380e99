"""Weights from a file: what is taken, and what is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy.actor import Actor, load_actor, scores, start
from policy.errors import PolicyError
from policy.features import PLAN_FEATURES, STATE
from policy.learned import WEIGHTS

WIDTH = 8


def actor(inputs: int = len(STATE), outputs: int = len(PLAN_FEATURES), fill: float | None = None) -> Actor:
    rng = np.random.default_rng(0)

    def layer(rows: int, columns: int) -> tuple[Any, Any]:
        weights = rng.normal(0, 0.1, (rows, columns)).astype(np.float32)
        return (weights if fill is None else np.full_like(weights, fill)), np.zeros(columns, np.float32)

    return Actor((layer(inputs, WIDTH), layer(WIDTH, outputs)), {"seed": 7})


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "weights.npz"
    made = actor()
    made.save(path)
    found = load_actor(path)
    state = np.random.default_rng(1).normal(size=(2, 3, len(STATE))).astype(np.float32)
    assert found.about == {"seed": 7}
    np.testing.assert_array_equal(found.coefficients(state), made.coefficients(state))
    assert [file.name for file in path.parent.iterdir()] == ["weights.npz"], "nothing half written is left"


def test_untrained_it_wants_what_is_best_for_the_site() -> None:
    silent = actor(fill=0.0)
    coefficients = silent.coefficients(np.ones((1, 1, len(STATE)), np.float32))
    np.testing.assert_array_equal(coefficients[0, 0], start())
    features = np.zeros((1, 1, 2, len(PLAN_FEATURES)), np.float32)
    features[0, 0, :, PLAN_FEATURES.index("own")] = 0.3, 0.5
    features[0, 0, :, PLAN_FEATURES.index("others")] = 0.0, -0.4
    assert scores(features, coefficients)[0, 0].tolist() == pytest.approx([0.3, 0.1])


def test_the_weights_that_ship_can_be_used() -> None:
    shipped = load_actor(WEIGHTS)
    assert np.isfinite(shipped.coefficients(np.zeros((1, 1, len(STATE)), np.float32))).all()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (actor(inputs=3), "layer 0 is of another shape"),
        (actor(outputs=2), "the network gives 2 coefficients"),
        (actor(fill=float("nan")), "not finite"),
        (actor(fill=float("inf")), "not finite"),
        (Actor((), {}), "the network gives"),
    ],
)
def test_networks_of_another_shape_are_refused(broken: Actor, words: str, tmp_path: Path) -> None:
    broken.save(tmp_path / "weights.npz")
    with pytest.raises(PolicyError, match=words):
        load_actor(tmp_path / "weights.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": ["uplink"]}, "trained on other features"),
        ({"plan_features": [*PLAN_FEATURES, "more"]}, "trained on other features"),
        ({"version": 99}, "is not a file of weights of version"),
        ({"format": "other"}, "is not a file of weights of version"),
        (None, "has no header"),
        ([], "is not a file of weights of version"),
    ],
)
def test_other_headers_are_refused(changes: dict[str, Any] | list[str] | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    actor().save(path)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays.pop("header")))
    if isinstance(changes, dict):
        arrays["header"] = np.array(json.dumps(header | changes))
    elif changes is not None:
        arrays["header"] = np.array(json.dumps(changes))
    np.savez(path, **arrays)
    with pytest.raises(PolicyError, match=words):
        load_actor(path)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("harmed").touch, ())

    path = tmp_path / "weights.npz"
    np.savez(path, header=np.array([Harm()], dtype=object))
    with pytest.raises(PolicyError, match="is not a file of weights"):
        load_actor(path)
    np.array([Harm()], dtype=object).dump(path)
    with pytest.raises(PolicyError):
        load_actor(path)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_refused(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    actor().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(PolicyError, match=r"weights\.npz"):
        load_actor(path)


def test_a_file_damaged_anywhere_is_refused_or_of_finite_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    actor().save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            found = load_actor(path)
        except PolicyError:
            continue
        assert all(np.isfinite(weights).all() and np.isfinite(biases).all() for weights, biases in found.layers)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot read weights"):
        load_actor(tmp_path / "absent.npz")
