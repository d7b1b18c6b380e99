"""Choosing among allowed actions: nothing else ever gets a probability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import PolicyError
from policy.learn.masking import best, masked_softmax, sample


@given(st.integers(0, 10_000), st.sampled_from([1.0, 100.0, 1e6]))
def test_probabilities_are_those_of_a_softmax_over_what_is_allowed(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(5, 2, 6))).astype(np.float32)
    allowed = rng.random(logits.shape) < 0.5
    allowed[..., 2] = True
    found = masked_softmax(logits, allowed)
    for row in np.ndindex(5, 2):
        kept = logits[row][allowed[row]].astype(np.float64)
        shares = np.exp(kept - kept.max())
        np.testing.assert_allclose(found[row][allowed[row]], shares / shares.sum(), atol=1e-6)
    assert (found[~allowed] == 0).all()
    for chosen in (best(logits, allowed), sample(logits, allowed, rng)):
        assert np.take_along_axis(allowed, chosen[..., None], -1).all()


def test_draws_have_their_probabilities() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1, 0.9], np.float32))
    allowed = np.array([True, True, True, False])
    drawn = sample(np.tile(logits, (40_000, 1)), np.tile(allowed, (40_000, 1)), np.random.default_rng(1))
    # Five standard deviations of a share at 40,000 draws are at most .0125.
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 40_000, [0.6, 0.3, 0.1, 0], atol=0.0125)


def test_a_row_that_allows_nothing_is_an_error() -> None:
    allowed = np.array([[[True, False]], [[False, False]]])
    for choose in (masked_softmax, best, lambda logits, mask: sample(logits, mask, np.random.default_rng(0))):
        with pytest.raises(PolicyError, match=r"row \(1, 0\) allows no action"):
            choose(np.zeros((2, 1, 2), np.float32), allowed)
