"""Trains one version: one process, fixed seeds, frames read from a memory-mapped file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tflite_models.builder.networks import build_network
from tflite_models.builder.recipes import Recipe

BATCH = 64
WARM_UP_STEPS = 300
WEIGHT_DECAY = 1e-3

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""


def train(
    recipe: Recipe,
    frames: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    weights: Path,
    *,
    epochs: float,
    batch: int = BATCH,
    threads: int = 2,
    progress: Progress,
) -> None:
    """Train on frames [n, 96, 96, 3] and write the Keras weights to ``weights``."""
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    keras.utils.set_random_seed(recipe.seed)
    network = build_network(recipe, softmax=False)
    steps = round(epochs * len(frames) / batch)
    warm_up = min(WARM_UP_STEPS, steps // 4)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=recipe.learning_rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer, loss, jit_compile=False)
    rng = np.random.default_rng(recipe.seed)
    data = tf.data.Dataset.from_generator(
        lambda: _batches(frames, labels, batch, steps, rng),
        output_signature=(
            tf.TensorSpec((batch, *frames.shape[1:]), tf.uint8),
            tf.TensorSpec((batch,), tf.uint8),
        ),
    ).prefetch(4)
    network.fit(data, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False, callbacks=[_Report(steps, progress)])
    network.save_weights(weights)


def _batches(
    frames: NDArray[np.uint8], labels: NDArray[np.uint8], batch: int, steps: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield shuffled batches, every other frame of each mirrored."""
    order = rng.permutation(len(frames))
    place = 0
    for _ in range(steps):
        if place + batch > len(order):
            order, place = rng.permutation(len(frames)), 0
        chosen = order[place : place + batch]
        place += batch
        pictures = frames[chosen]
        pictures[::2] = pictures[::2, :, ::-1]
        yield pictures, labels[chosen]


class _Report(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, steps: int, progress: Progress) -> None:
        super().__init__()
        self._steps = steps
        self._progress = progress

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if batch % 50 == 49 or batch + 1 == self._steps:
            self._progress(batch + 1, self._steps, (logs or {}).get("loss", float("nan")))
