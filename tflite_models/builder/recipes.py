"""What each shipped version is: its family, widths, depths, cuts and how long it trains (no TensorFlow here)."""

from __future__ import annotations

from dataclasses import dataclass

INT8 = "-int8"
"""Suffix of the version that is the same network, quantised to integers after training."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One network: ``widths`` are channels per stage, or growth per dense block; ``depths`` layers in each."""

    name: str
    family: str
    stem: int
    widths: tuple[int, int, int]
    depths: tuple[int, int, int]
    cuts: tuple[str, ...]
    learning_rate: float
    epochs: float
    seed: int


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("resnet-light", "resnet", 12, (12, 24, 48), (1, 1, 1), ("s1", "s2"), 4e-3, 2.0, 11),
        Recipe("resnet-heavy", "resnet", 32, (32, 64, 128), (2, 2, 2), ("s1", "s2b1", "s2", "s3b1"), 3e-3, 2.5, 12),
        Recipe("vgg-light", "vgg", 12, (16, 32, 64), (1, 2, 1), ("stem", "s1", "s2b1", "s2"), 4e-3, 2.0, 13),
        Recipe("vgg-heavy", "vgg", 32, (48, 96, 192), (2, 3, 2), ("stem", "s1", "s2b2", "s2", "s3b1"), 3e-3, 1.75, 14),
        Recipe("densenet-light", "densenet", 12, (6, 12, 24), (3, 3, 3), ("stem", "t1", "t2"), 4e-3, 1.5, 15),
        Recipe("densenet-heavy", "densenet", 32, (16, 32, 64), (4, 5, 4), ("stem", "t1", "t2"), 3e-3, 2.0, 16),
    )
}
