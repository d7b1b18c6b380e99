"""The three families as Keras models: every cut is the output of a layer that carries the cut's name."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tflite_models.builder.frames import LABELS, SIDE
from tflite_models.builder.recipes import Recipe

Tensor = Any


def build_network(recipe: Recipe, *, softmax: bool, input_dtype: str = "uint8") -> keras.Model:
    """Return the network for pixels 0–255 [n, 96, 96, 3]; output [n, 10], float32 logits or probabilities."""
    pixels = keras.Input((SIDE, SIDE, 3), dtype=input_dtype, name="pixels")
    x = layers.Rescaling(1 / 255, name="rescale")(pixels)
    x = {"resnet": _resnet, "vgg": _vgg, "densenet": _densenet}[recipe.family](x, recipe)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(len(LABELS), name="classes", dtype="float32")(x)
    if softmax:
        x = layers.Softmax(name="scores", dtype="float32")(x)
    return keras.Model(pixels, x, name=recipe.name.replace("-", "_"))


def _conv(x: Tensor, width: int, name: str, *, side: int = 3, stride: int = 1, relu: str | None = None) -> Tensor:
    """Convolution and batch norm, then a ReLU where it is given a name."""
    x = layers.Conv2D(width, side, stride, "same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=0.97, name=f"{name}_norm")(x)
    return layers.ReLU(name=relu)(x) if relu else x


def _resnet(x: Tensor, recipe: Recipe) -> Tensor:
    x = _conv(x, recipe.stem, "stem", stride=2, relu="stem")
    for stage, (width, depth) in enumerate(zip(recipe.widths, recipe.depths, strict=True), start=1):
        for block in range(1, depth + 1):
            name = f"s{stage}" if block == depth else f"s{stage}b{block}"
            stride = 2 if block == 1 else 1
            y = _conv(x, width, f"{name}_a", stride=stride, relu=f"{name}_a")
            y = _conv(y, width, f"{name}_b")
            x = _conv(x, width, f"{name}_skip", side=1, stride=stride) if block == 1 else x
            x = layers.ReLU(name=name)(layers.Add(name=f"{name}_sum")([x, y]))
    return x


def _vgg(x: Tensor, recipe: Recipe) -> Tensor:
    """Pooling ends the stem and the first two stages, so that their cuts are the small, pooled tensors."""
    x = _conv(x, recipe.stem, "stem_a", stride=2, relu="stem_a")
    x = layers.MaxPooling2D(2, name="stem")(x)
    for stage, (width, depth) in enumerate(zip(recipe.widths, recipe.depths, strict=True), start=1):
        for block in range(1, depth + 1):
            x = _conv(x, width, f"s{stage}b{block}", relu=f"s{stage}b{block}")
        if stage < 3:
            x = layers.MaxPooling2D(2, name=f"s{stage}")(x)
    return x


def _densenet(x: Tensor, recipe: Recipe) -> Tensor:
    """Each layer sees all before it in its block; a transition halves side and channels.

    Batch norm and ReLU follow each convolution (they precede it in the original), so that the converter
    can fold them into it.
    """
    x = _conv(x, recipe.stem, "stem_a", stride=2, relu="stem_a")
    x = layers.MaxPooling2D(2, name="stem")(x)
    for block, (growth, depth) in enumerate(zip(recipe.widths, recipe.depths, strict=True), start=1):
        for layer in range(1, depth + 1):
            y = _conv(x, growth, f"d{block}l{layer}", relu=f"d{block}l{layer}")
            x = layers.Concatenate(name=f"d{block}l{layer}_join")([x, y])
        if block < 3:
            x = layers.AveragePooling2D(2, name=f"t{block}_pool")(x)
            x = _conv(x, x.shape[-1] // 2, f"t{block}", side=1, relu=f"t{block}")
    return x
