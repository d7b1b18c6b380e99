"""The one root of what this package raises."""

from __future__ import annotations


class PolicyError(ValueError):
    """A setting, profile or plan that no decision can be made with; the message says what to change."""
