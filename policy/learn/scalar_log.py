"""Figures of a training run for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf


class ScalarLog:
    """Writes named figures by step into a folder that ``tensorboard --logdir`` shows; without a folder, nowhere."""

    def __init__(self, folder: Path | None) -> None:
        self._writer = tf.summary.create_file_writer(str(folder)) if folder else None

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Record the figures of one step."""
        if self._writer is None:
            return
        with self._writer.as_default():
            for name, figure in figures.items():
                tf.summary.scalar(name, figure, step)

    def close(self) -> None:
        """Write what is still held back."""
        if self._writer is not None:
            self._writer.close()
