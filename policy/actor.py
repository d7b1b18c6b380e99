"""The trained network at run time, as plain matrix products: from states to coefficients, from those to scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policy.batch import Reals
from policy.errors import PolicyError
from policy.features import PLAN_FEATURES, STATE

FORMAT = "splitfleet-a2c"
VERSION = 1
SHARPNESS = 25.0
"""Logit per unit of reward before any training: a plan better by 0.04 is e times as likely."""
START = {"own": 1.0, "others": 1.0, "battery price": 1.0}
"""Coefficients before any training: what the plan brings the whole site, batteries paced."""


@dataclass(frozen=True)
class Actor:
    """Layers of the trunk, (weights, biases) each; the last gives one coefficient per plan feature."""

    layers: tuple[tuple[Reals, Reals], ...]
    about: Mapping[str, Any]
    """Where the weights come from: command, seed, commit, steps, ranges of training."""

    def coefficients(self, states: Reals) -> Reals:
        """Return what a unit of each plan feature is worth [..., len(PLAN_FEATURES)] in states [..., len(STATE)]."""
        hidden = states
        for weights, biases in self.layers[:-1]:
            hidden = np.tanh(hidden @ weights + biases)
        weights, biases = self.layers[-1]
        return np.asarray(start() + hidden @ weights + biases, np.float32)

    def save(self, path: Path) -> None:
        """Write the weights as numpy arrays with a JSON header; whole or not at all."""
        header = {"format": FORMAT, "version": VERSION, "state": STATE, "plan_features": PLAN_FEATURES, **self.about}
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
        for i, (weights, biases) in enumerate(self.layers):
            arrays[f"w{i}"], arrays[f"b{i}"] = weights, biases
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        with fresh.open("wb") as file:
            np.savez(file, **arrays)
        fresh.replace(path)


def start() -> Reals:
    """Return the coefficients before any training."""
    return np.array([START.get(name, 0.0) for name in PLAN_FEATURES], np.float32)


def scores(features: Reals, coefficients: Reals) -> Reals:
    """Return the score [..., P] of plans with features [..., P, K] under coefficients [..., K], in units of reward."""
    return np.asarray((features @ coefficients[..., None])[..., 0])


def load_actor(path: Path) -> Actor:
    """Read trained weights; raises ``PolicyError`` where the file is none, or of a network of another shape."""
    try:
        # Opened here: numpy leaves a file that is no archive open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise PolicyError(f"cannot read weights {path}: {error.strerror or error}") from error
    except Exception as error:
        raise PolicyError(f"{path} is not a file of weights: splitfleet policy train makes one") from error
    return _checked(path, arrays)


def _checked(path: Path, arrays: Mapping[str, Any]) -> Actor:
    try:
        header = json.loads(str(arrays["header"]))
    except (KeyError, ValueError) as error:
        raise PolicyError(f"{path} is not a file of weights: it has no header") from error
    if not isinstance(header, dict) or (header.get("format"), header.get("version")) != (FORMAT, VERSION):
        raise PolicyError(f"{path} is not a file of weights of version {VERSION}")
    if (tuple(header.get("state", ())), tuple(header.get("plan_features", ()))) != (STATE, PLAN_FEATURES):
        raise PolicyError(f"{path} was trained on other features than this version of splitfleet has: train again")
    layers: list[tuple[Reals, Reals]] = []
    inputs = len(STATE)
    while f"w{len(layers)}" in arrays:
        weights, biases = arrays[f"w{len(layers)}"], arrays.get(f"b{len(layers)}", np.zeros(0))
        fits = weights.ndim == 2 and weights.shape[0] == inputs and biases.shape == weights.shape[1:]
        if not fits or not (np.isfinite(weights).all() and np.isfinite(biases).all()):
            raise PolicyError(f"{path}: layer {len(layers)} is of another shape or not finite")
        layers.append((weights.astype(np.float32), biases.astype(np.float32)))
        inputs = weights.shape[1]
    if not layers or inputs != len(PLAN_FEATURES):
        raise PolicyError(f"{path}: the network gives {inputs} coefficients, {len(PLAN_FEATURES)} are needed")
    own = {"format", "version", "state", "plan_features"}
    return Actor(tuple(layers), {key: value for key, value in header.items() if key not in own})
