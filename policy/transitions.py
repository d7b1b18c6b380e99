"""The file in which a site's periods travel to training, and the traces of it that a simulation replays."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy.errors import PolicyError
from policy.site_periods import FIGURES, SitePeriods, filled_forward
from policy.table import Array, Mask

FORMAT = "splitfleet-transitions"
SCHEMA = 1
FRESH_MS = 10_000.0
"""An uplink measured longer ago counts as a gap: the device has sent nothing since."""


def save_periods(site: SitePeriods, path: Path) -> None:
    """Write one .npz: a JSON ``header`` (what each array means) and one array per figure; nothing pickled.

    The file appears whole or not at all. Figures are float32.
    """
    header = {
        "format": FORMAT,
        "schema": SCHEMA,
        "start_ms": site.start_ms,
        "period_ms": site.period_ms,
        "devices": site.devices,
        "plans": site.plans,
        "axes": "devices, periods; the next observation of column t is column t + 1; weights: devices, 3",
        "figures": dict(FIGURES),
    }
    arrays = {name: values.astype(np.float32) for name, values in site.figures.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), weights=site.weights, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_periods(path: Path) -> SitePeriods:
    """Read what ``save_periods`` wrote; raises ``PolicyError`` for anything else."""
    if not path.is_file():
        raise PolicyError(f"there is no {path}: make it with splitfleet policy export")
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header["format"] != FORMAT:
                raise PolicyError(f"{path} holds {header['format']}, not {FORMAT}")
            if header["schema"] != SCHEMA:
                raise PolicyError(
                    f"{path} was made by another release (schema {header['schema']}, we read {SCHEMA}): export it again"
                )
            figures = {name: file[name].astype(np.float64) for name in FIGURES}
            site = SitePeriods(
                int(header["start_ms"]),
                int(header["period_ms"]),
                tuple(map(str, header["devices"])),
                tuple(map(str, header["plans"])),
                file["weights"].astype(np.float64),
                figures,
            )
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(f"{path} is not a file of splitfleet policy export: {error}") from error
    shape = (len(site.devices), site.periods)
    wrong = [name for name, values in figures.items() if values.shape != shape]
    if wrong or site.weights.shape != (len(site.devices), 3):
        raise PolicyError(f"{path} is damaged: {', '.join(wrong or ['weights'])} are not of the shape of the rest")
    return site


@dataclass(frozen=True)
class Traces:
    """What a simulation replays of a site: conditions over time, gaps filled, and how far costs were off."""

    period_s: float
    devices: tuple[str, ...]
    left_out: tuple[str, ...]
    """Devices that never measured their uplink."""
    uplink_bps: Array
    """[devices, periods], like ``rtt_ms``, ``fps``, ``observed``."""
    rtt_ms: Array
    fps: Array
    observed: Mask
    """Where the uplink was measured within ``FRESH_MS``. Elsewhere stands the one before, at the start the first."""
    head_factor: Array
    """[devices], like the next two: median of measured over modelled; NaN where nothing was measured."""
    tail_factor: Array
    latency_factor: Array
    """Of the whole latency, uncalibrated: it contains what the other two tell."""

    @property
    def periods(self) -> int:
        """How many."""
        return int(self.uplink_bps.shape[1])


def site_traces(path: Path) -> Traces:
    """Read an exported file as traces; raises ``PolicyError`` where no device measured its uplink."""
    return traces_of(load_periods(path))


def traces_of(site: SitePeriods) -> Traces:
    """Return the traces of a site's periods; raises ``PolicyError`` where no device measured its uplink."""
    figures = site.figures
    there = np.isfinite(figures["uplink_bps"]).any(axis=1)
    if not there.any():
        raise PolicyError("no device of this file measured its uplink: let the site run under plans that send")
    age_ms = figures["estimate_age_ms"]
    fresh = np.isnan(age_ms) | (age_ms <= FRESH_MS)
    names = np.array(site.devices)
    return Traces(
        site.period_ms / 1000,
        tuple(names[there].tolist()),
        tuple(names[~there].tolist()),
        uplink_bps=_filled(figures["uplink_bps"][there], 0.0),
        rtt_ms=_filled(figures["rtt_ms"][there], 0.0),
        fps=_filled(figures["fps"][there], 0.0),
        observed=np.isfinite(figures["uplink_bps"][there]) & fresh[there],
        head_factor=_medians(figures["head_factor"][there]),
        tail_factor=_medians(figures["tail_factor"][there]),
        latency_factor=_medians(figures["latency_factor"][there]),
    )


def _filled(values: Array, nothing: float) -> Array:
    """Fill gaps from before, those at the start from the first value, rows without any with ``nothing``."""
    forward = filled_forward(values)
    backward = filled_forward(forward[:, ::-1])[:, ::-1]
    return np.nan_to_num(backward, nan=nothing)


def _medians(values: Array) -> Array:
    known = [row[np.isfinite(row)] for row in values]
    return np.array([np.median(row) if len(row) else np.nan for row in known])
