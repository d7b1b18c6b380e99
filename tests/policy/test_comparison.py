"""A shadow beside the acting policy: the difference, its interval, and how far to trust it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policy.comparison import compare, trust
from policy.errors import PolicyError
from policy.interface import Weights
from policy.rules import DeviceRules
from policy.site_periods import collect
from policy.site_record import Rows, SiteRecord
from tests.policy.builders import HEAVY_LOCAL, HEAVY_S2, HEAVY_WEBP, LIGHT_LOCAL
from tests.policy.recorded import Recording, known

AT = 1_700_000_040_000


def rows(path: Path) -> Rows:
    with SiteRecord(path) as record:
        return record.rows("shadow", 0)


def test_difference_pairs_and_devices(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "recorder.sqlite")
    for minute in range(20):
        recording.shadow(
            AT + minute * 60_000,
            ("cam-1", HEAVY_LOCAL, HEAVY_WEBP, 0.4, 0.5),
            ("cam-2", HEAVY_LOCAL, HEAVY_LOCAL, 0.3, 0.3),
            ("cam-3", HEAVY_S2, LIGHT_LOCAL, 0.6, 0.4 if minute % 2 else 0.5),
            ("cam-4", LIGHT_LOCAL, LIGHT_LOCAL, None, None),
        )
    (found,) = compare(rows(recording.close()), np.random.default_rng(0))
    assert (found.acting, found.shadow) == ("greedy", "a2c")
    assert (found.periods, found.unpredicted, found.blocks) == (60, 20, 20)
    assert found.estimate == pytest.approx((0.1 + 0.0 - 0.15) / 3)
    assert found.acting_reward == pytest.approx((0.4 + 0.3 + 0.6) / 3)
    assert found.shadow_reward - found.acting_reward == pytest.approx(found.estimate)
    assert found.differing == pytest.approx(2 / 3)
    assert found.difference is not None
    assert found.difference.low <= found.estimate <= found.difference.high
    assert {pair[:3]: pytest.approx(pair[3]) for pair in found.pairs} == {
        (str(HEAVY_LOCAL), str(HEAVY_WEBP), 20): 0.1,
        (str(HEAVY_S2), str(LIGHT_LOCAL), 20): -0.15,
    }
    assert [d.device for d in found.devices] == ["plant/cam-3", "plant/cam-2", "plant/cam-1"]
    assert [d.differing for d in found.devices] == [1.0, 0.0, 1.0]


def test_the_interval_is_as_wide_as_whole_blocks_are_uneven(tmp_path: Path) -> None:
    """Periods of a minute are alike, so a thousand of them are no more than their minutes."""
    rng = np.random.default_rng(1)
    recording = Recording(tmp_path / "recorder.sqlite")
    gains = rng.normal(0.05, 0.1, 40)
    for minute, gain in enumerate(gains):
        for second in range(0, 60, 5):
            told = ("cam-1", HEAVY_LOCAL, HEAVY_WEBP, 0.4, 0.4 + gain)
            recording.shadow(AT + minute * 60_000 + second * 1_000, told)
    (found,) = compare(rows(recording.close()), np.random.default_rng(0))
    assert found.difference is not None
    # 1.96 standard errors of the mean of forty blocks
    assert found.difference.half == pytest.approx(1.96 * gains.std() / np.sqrt(40), rel=0.15)


def test_too_little_gives_no_interval_and_nothing_an_error(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "recorder.sqlite")
    with pytest.raises(PolicyError, match="no shadow decisions"):
        compare(rows(recording.path), np.random.default_rng(0))
    recording.shadow(AT, ("cam-1", HEAVY_LOCAL, HEAVY_LOCAL, 0.4, 0.4))
    (found,) = compare(rows(recording.close()), np.random.default_rng(0))
    assert found.difference is None


def test_devices_without_profile_alone_are_an_error(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "recorder.sqlite")
    recording.shadow(AT, ("cam-1", HEAVY_LOCAL, HEAVY_LOCAL, None, None))
    with pytest.raises(PolicyError, match="profile its device class"):
        compare(rows(recording.close()), np.random.default_rng(0))


def test_predictions_are_held_against_what_was_measured(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "recorder.sqlite")
    recording.device("cam-1")
    for minute in range(4):
        at = AT + minute * 60_000
        recording.ended("cam-1", [at + 1_000, at + 30_000], latency_ms=100.0 + 50 * minute, energy_mj=260.0)
        # frames are measured at 0.5 + 0.3 (1 - ms/500) + 0.2 (1 - 260/520); predictions are all 0.1 above
        measured = 0.5 + 0.3 * (1 - (100 + 50 * minute) / 500) + 0.1
        recording.shadow(at + 10_000, ("cam-1", HEAVY_LOCAL, HEAVY_LOCAL, measured + 0.1, 0.0))
        recording.shadow(at + 20_000, ("cam-2", HEAVY_LOCAL, HEAVY_LOCAL, 0.7, 0.0))
    path = recording.close()
    with SiteRecord(path) as record:
        periods = collect(record, known(DeviceRules(weights=Weights(0.5, 0.3, 0.2))), AT, 60_000)
    found = trust(rows(path), periods)
    assert found is not None
    assert found.blocks == 4
    assert found.bias == pytest.approx(0.1)
    assert found.typical_error == pytest.approx(0.1)
    assert found.correlation == pytest.approx(1.0)


def test_nothing_measured_is_no_trust(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "recorder.sqlite")
    recording.telemetry("cam-1", AT)
    recording.shadow(AT, ("cam-1", HEAVY_LOCAL, HEAVY_LOCAL, 0.4, 0.4))
    path = recording.close()
    with SiteRecord(path) as record:
        assert trust(rows(path), collect(record, known(), AT - 1, 60_000)) is None
