"""Turns trained weights into ``.tflite`` files: float32, and full int8 with uint8 pixels in and float32 scores out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tflite_models.builder.networks import build_network
from tflite_models.builder.recipes import Recipe

CALIBRATION_FRAMES = 256


def export_float(recipe: Recipe, weights: Path, out: Path) -> None:
    """Write the float32 version: uint8 [n, 96, 96, 3] in, probabilities [n, 10] out."""
    converter = _converter(recipe, weights, "uint8")
    out.write_bytes(converter.convert())


def export_int8(recipe: Recipe, weights: Path, out: Path, frames: NDArray[np.uint8]) -> None:
    """Write the full-int8 version, its ranges calibrated on the first training frames."""
    converter = _converter(recipe, weights, "float32")

    def representative() -> Iterator[list[NDArray[np.float32]]]:
        for frame in frames[:CALIBRATION_FRAMES].astype(np.float32):
            frame[0, 0], frame[0, 1] = 0, 255  # pins the input's quantisation to one step per grey value
            yield [frame[None]]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    # per-channel dense layers need FULLY_CONNECTED version 12, which tflite-runtime 2.14 does not know
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    out.write_bytes(converter.convert())


def _converter(recipe: Recipe, weights: Path, input_dtype: str) -> Any:
    keras.utils.set_random_seed(recipe.seed)
    network = build_network(recipe, softmax=True, input_dtype=input_dtype)
    network.load_weights(weights)
    shape = (1, *network.input_shape[1:])
    function = tf.function(lambda pixels: network(pixels, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec(shape, input_dtype, name="pixels"))
    frozen = convert_variables_to_constants_v2(concrete)
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen])
