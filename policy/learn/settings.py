"""The settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policy.errors import PolicyError


@dataclass(frozen=True, slots=True)
class A2CSettings:
    """What an Advantage Actor-Critic is trained with; the defaults are those that suit the fleet."""

    gamma: float = 0.99
    """Discount of the next step's reward."""
    gae_lambda: float = 0.95
    """0: one-step advantages; 1: n-step returns."""
    learning_rate: float = 2e-3
    learning_rate_end: float = 0.1
    """Share of ``learning_rate`` that is left at the end; it falls in a straight line."""
    optimiser: Literal["adam", "rmsprop"] = "adam"
    value_coef: float = 0.5
    entropy_start: float = 0.02
    entropy_end: float = 0.001
    """Weight of the entropy bonus; it moves in a straight line from start to end."""
    clipnorm: float = 0.5
    """Greatest global norm of a gradient."""
    n_steps: int = 5
    """Steps of every environment between two updates."""
    n_envs: int = 16
    normalise_advantage: bool = False
    """Whether the advantages of a batch are shifted and scaled to mean 0 and deviation 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("gamma", "gae_lambda", "learning_rate_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise PolicyError(f"{name} is {getattr(self, name)}: choose it between 0 and 1")
        for name in ("learning_rate", "clipnorm"):
            if not getattr(self, name) > 0:
                raise PolicyError(f"{name} is {getattr(self, name)}: choose it above 0")
        for name in ("value_coef", "entropy_start", "entropy_end"):
            if not getattr(self, name) >= 0:
                raise PolicyError(f"{name} is {getattr(self, name)}: it cannot be below 0")
        for name in ("n_steps", "n_envs"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name} is {getattr(self, name)}: choose at least 1")
        if self.optimiser not in ("adam", "rmsprop"):
            raise PolicyError(f"there is no optimiser '{self.optimiser}': choose adam or rmsprop")

    def learning_rate_at(self, progress: float) -> float:
        """Return the learning rate when a share ``progress`` of the training is done."""
        return self.learning_rate * (1 + progress * (self.learning_rate_end - 1))

    def entropy_at(self, progress: float) -> float:
        """Return the weight of the entropy bonus when a share ``progress`` of the training is done."""
        return self.entropy_start + progress * (self.entropy_end - self.entropy_start)
