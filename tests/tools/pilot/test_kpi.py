"""The KPI sheet: what is refused, and weights under which the policy wants what the prices want."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from policy.interface import Weights
from policy.reward import reward
from tools.pilot.kpi import Adoption, KpiSheet, Operation, PilotError, Worth, load_sheet, weights, weights_toml
from wire.settings import SettingsError

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "kpi.toml"


def test_the_example_loads_and_says_in_comments_what_else_there_is() -> None:
    sheet = load_sheet(EXAMPLE)
    assert (sheet.currency, sheet.operation.devices, sheet.worth.no_answer) == ("EUR", 40, sheet.worth.wrong_answer)
    text = EXAMPLE.read_text()
    for key in ("deadline_ms", "lost_frame", "frames_per_device_month", "gigabyte", "once", "monthly", "accuracy"):
        assert key in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[worth]\nkilowatt_hour = 0.3\n", "operation is missing"),
        ("[worth]\n[operation]\ndevices = 1\n", "at least one of second_of_latency, kilowatt_hour and wrong_answer"),
        ("[worth]\nwrong_answer = -1\n[operation]\ndevices = 1\n", "worth.wrong_answer = -1: allowed is 0 to 1e9"),
        ("[worth]\njoule = 1\n[operation]\ndevices = 1\n", "unknown setting worth.joule"),
        ("[worth]\nwrong_answer = 1\n[operation]\ndevices = 0\n", "operation.devices = 0: allowed is 1 to"),
        ("[worth]\nwrong_answer = 1\n[operation]\ndevices = 1\nhours_per_month = 900\n", "hours_per_month = 900"),
        ("[worth]\nwrong_answer = 1\n[operation]\ndevices = 1\n[adoption]\nonce = -5\n", "adoption once = -5"),
        ('accuracy = "mine"\n[worth]\nwrong_answer = 1\n[operation]\ndevices = 1\n', "accuracy = 'mine' is not one of"),
        ('currency = ""\n[worth]\nwrong_answer = 1\n[operation]\ndevices = 1\n', "write a short word such as EUR"),
        ("deadline_ms = 0\n[worth]\nwrong_answer = 1\n[operation]\ndevices = 1\n", "deadline_ms = 0: allowed is 1"),
        ("[worth\n", "is not TOML"),
    ],
)
def test_a_sheet_that_makes_no_sense_is_refused_by_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "kpi.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"kpi\.toml") as refused:
        load_sheet(file)
    assert words in str(refused.value)


def test_weights_worked_out_by_hand() -> None:
    # A tenth of accuracy is 0.001 EUR; a deadline of 500 ms at 0.006 EUR/s 0.003 EUR; 4 J at 0.9 EUR/kWh 0.000001 EUR.
    found = weights(Worth(second_of_latency=0.006, kilowatt_hour=0.9, wrong_answer=0.01), 0.1, 500.0, 4000.0)
    assert found == Weights(0.2499, 0.7498, 0.0003)
    assert weights(Worth(kilowatt_hour=1.0), 0.1, 500.0, 4000.0) == Weights(0.0, 0.0, 1.0)
    with pytest.raises(PilotError, match="weigh nothing here"):
        weights(Worth(wrong_answer=1.0), 0.0, 500.0, 4000.0)


price = st.floats(0.01, 1.0)
share = st.floats(0.0, 1.0)


@given(price, price, price, st.tuples(share, share, share), st.tuples(share, share, share))
def test_the_policy_prefers_what_is_worth_more(
    second: float, kwh: float, wrong: float, one: tuple[float, ...], other: tuple[float, ...]
) -> None:
    """Of two plans the one of greater reward is the one that costs less, where no limit of the terms is touched."""
    span, deadline_ms, heavy_mj = 0.2, 400.0, 2e6
    worth = Worth(second, kwh, wrong)
    chosen = weights(worth, span, deadline_ms, heavy_mj)

    def cost(plan: tuple[float, ...]) -> float:
        accuracy, latency_ms, energy_mj = 0.7 + span * plan[0], deadline_ms * plan[1], heavy_mj * plan[2]
        return wrong * (1 - accuracy) + second * latency_ms / 1000 + kwh * energy_mj / 3.6e9

    def rewarded(plan: tuple[float, ...]) -> float:
        a, zero = np.array(plan[0]), np.array(0.0)
        told = np.array([chosen.accuracy, chosen.latency, chosen.energy])
        return float(reward(
            told, a, np.array(deadline_ms * plan[1]), np.array(deadline_ms), np.array(heavy_mj * plan[2]),
            np.array(heavy_mj), zero, zero,
        ))  # fmt: skip

    scale = wrong * span + second * deadline_ms / 1000 + kwh * heavy_mj / 3.6e9
    gain = (cost(other) - cost(one)) / scale
    assume(abs(gain) > 0.002)  # weights are rounded to four places
    assert (rewarded(one) > rewarded(other)) == (gain > 0)
    assert rewarded(one) - rewarded(other) == pytest.approx(gain, abs=0.001)


def test_weights_are_tables_of_the_policys_settings() -> None:
    text = weights_toml({"a": Weights(0.5, 0.3, 0.2), "b": Weights(0.5, 0.3, 0.2), "c": Weights(1, 0, 0)})
    told = tomllib.loads(text)
    assert told["defaults"]["weights"] == {"accuracy": 0.5, "latency": 0.3, "energy": 0.2}
    assert told["devices"] == {"c": {"weights": {"accuracy": 1, "latency": 0, "energy": 0}}}


def test_a_sheet_in_code_has_the_same_defaults() -> None:
    sheet = KpiSheet(Worth(wrong_answer=1.0, lost_frame=2.0), Operation(3))
    assert (sheet.adoption, sheet.worth.no_answer, sheet.accuracy) == (Adoption(), 2.0, "labels")
