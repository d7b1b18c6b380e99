"""The one root of everything this package raises."""

from __future__ import annotations


class EdgeError(Exception):
    """Something at the edge cannot work as it is set up; the message says what to do."""
