"""A promotion's folder: the service keeps its state there, commands leave requests and read how it stands."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.errors import PolicyError
from policy.promotion import Event, Phase, Promotion, Terms
from policy.promotion_evidence import Blocks, Evidence

SCHEMA = 1
STATE = "promotion.json"
"""Written by the decision service alone."""
REQUEST = "request.json"
"""Written by a command, taken away by the service."""
SAVE_S = 300.0
"""Between two saves when nothing happens; a killed service loses so much evidence. With a thousand devices a save takes
a good part of a second."""
CANDIDATES = "candidates"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,80}\Z")
"""A candidate's name becomes a file name."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a command asks the service for."""

    kind: str
    """promote or rollback."""
    asked_s: float
    candidate: str = ""
    terms: Terms = dataclasses.field(default_factory=Terms)
    reason: str = ""


class PromotionDesk:
    """The service's side: ``turn`` once a period does everything there is to do. One service per folder."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._saved_s = 0.0
        self.problem = ""
        """What was wrong with the state found, in words; it is then kept aside and begun anew."""
        self.promotion = self._load()

    def turn(self, now_s: float) -> list[Event]:
        """Take a request if one waits, let time pass, save what changed; return what happened, for the log.

        ``now_s`` is Unix time. Raises ``OSError`` where the folder cannot be written; the state in memory goes on.
        """
        events = []
        try:
            request = take_request(self._folder)
        except PolicyError as error:
            events.append(Event(now_s, "refused", str(error)))
        else:
            if request is not None:
                events.append(self._asked(request, now_s))
        happened = self.promotion.step(now_s)
        if happened is not None:
            events.append(happened)
        if events or not 0 <= now_s - self._saved_s < SAVE_S:
            self.save(now_s)
        return events

    def unusable(self, now_s: float, reason: str) -> Event:
        """The candidate's weights cannot be loaded or fail: step back."""
        event = self.promotion.roll_back(now_s, reason)
        self.save(now_s)
        return event

    def weights(self, name: str) -> Path:
        """Return the file of a candidate or incumbent by name."""
        return weights_file(self._folder, name)

    def save(self, now_s: float) -> None:
        """Write the state, whole or not at all."""
        _write(self._folder / STATE, _to_json(self.promotion))
        self._saved_s = now_s

    def _asked(self, request: Request, now_s: float) -> Event:
        if request.kind == "rollback":
            return self.promotion.roll_back(now_s, request.reason or "asked for by the operator")
        return self.promotion.begin(now_s, request.candidate, request.terms)

    def _load(self) -> Promotion:
        try:
            return load_promotion(self._folder) or Promotion()
        except PolicyError as error:
            aside = self._folder / f"{STATE}.damaged"
            (self._folder / STATE).replace(aside)
            self.problem = f"{error}; it is kept as {aside}, and the weights of the settings act for all devices"
            return Promotion()


def load_promotion(folder: Path) -> Promotion | None:
    """Return the state as the service last saved it; ``None`` where there is none. Raises ``PolicyError``."""
    path = folder / STATE
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"{path} cannot be read as the state of a promotion: {error}") from error


def weights_file(folder: Path, name: str) -> Path:
    """Return where the weights of that name lie."""
    return folder / CANDIDATES / f"{name}.npz"


def ask_promotion(folder: Path, weights: Path, terms: Terms, now_s: float) -> Request:
    """Copy a candidate into the folder and ask the service to promote it; raises ``PolicyError``.

    The copy is what is promoted, whatever becomes of the file. Its name tells file, contents and time.
    """
    state = load_promotion(folder)
    if state is not None and state.in_progress:
        raise PolicyError(
            f"the promotion of {state.candidate} is in progress: wait for its end (splitfleet policy status), "
            "or end it with splitfleet policy rollback"
        )
    try:
        contents = weights.read_bytes()
    except OSError as error:
        raise PolicyError(f"cannot read {weights}: {error.strerror}") from error
    if not contents.startswith(b"PK"):
        raise PolicyError(f"{weights} is not a file of weights (.npz): train one with splitfleet policy train")
    stem = re.sub(r"[^a-z0-9]+", "-", weights.stem.lower()).strip("-")[:40] or "candidate"
    name = f"{stem}-{hashlib.sha256(contents).hexdigest()[:8]}-{int(now_s)}"
    target = weights_file(folder, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    shutil.copyfile(weights, partial)
    partial.replace(target)
    request = Request("promote", now_s, name, terms)
    try:
        _leave(folder, request)
    except PolicyError:
        target.unlink()
        raise
    return request


def ask_rollback(folder: Path, reason: str, now_s: float) -> Request:
    """Ask the service to step back; raises ``PolicyError``. It takes the place of a request that still waits."""
    if not folder.is_dir():
        raise PolicyError(f"{folder} is no folder of promotions: name the one in the decision service's settings")
    request = Request("rollback", now_s, reason=reason)
    _write(folder / REQUEST, _request_json(request))
    return request


def waiting_request(folder: Path) -> Request | None:
    """Return the request the service has not taken yet; raises ``PolicyError`` for one that cannot be read."""
    return _request(folder / REQUEST)


def take_request(folder: Path) -> Request | None:
    """Return the request that waits, if any, and take it away, also where it raises ``PolicyError``."""
    taken = folder / f".{REQUEST}.taken"
    try:
        (folder / REQUEST).replace(taken)  # first, so that one left meanwhile is not lost
    except FileNotFoundError:
        return None
    try:
        return _request(taken)
    finally:
        taken.unlink()


def _request(path: Path) -> Request | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        request = Request(
            str(told["kind"]),
            float(told["asked_s"]),
            str(told["candidate"]),
            _terms(told["terms"]),
            str(told["reason"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"{path} cannot be read as a request: {error}") from error
    if request.kind not in ("promote", "rollback") or (request.kind == "promote" and not NAME.match(request.candidate)):
        raise PolicyError(f"{path} asks for '{request.kind}' of '{request.candidate}', which cannot be")
    return request


def _leave(folder: Path, request: Request) -> None:
    """Write a request unless one waits already."""
    path = folder / REQUEST
    partial = path.with_name(f".{REQUEST}.{os.getpid()}")
    partial.write_text(json.dumps(_request_json(request)), encoding="utf-8")
    try:
        os.link(partial, path)  # refused where it exists, whoever else is about to write
    except FileExistsError:
        raise PolicyError(f"{path} waits for the decision service: is it running?") from None
    finally:
        partial.unlink()


def _write(path: Path, value: Any) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value))  # many times faster than dump
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _request_json(request: Request) -> dict[str, Any]:
    return dataclasses.asdict(request)


def _terms(told: dict[str, Any]) -> Terms:
    return Terms(**(told | {"shares": tuple(float(share) for share in told["shares"])}))


def _to_json(state: Promotion) -> dict[str, Any]:
    out = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name != "evidence"}
    out["terms"] = dataclasses.asdict(state.terms)
    out["events"] = [dataclasses.asdict(event) for event in state.events]
    evidence = state.evidence
    out["evidence"] = {
        "before": _rounded(evidence.before),
        "during": _rounded(evidence.during),
        "frames": evidence.frames,
    }
    return {"schema": SCHEMA, **out}


def _from_json(told: dict[str, Any]) -> Promotion:
    if told["schema"] != SCHEMA:
        raise ValueError(f"schema {told['schema']}, this release reads {SCHEMA}")
    values = {f.name: told[f.name] for f in dataclasses.fields(Promotion)}
    evidence = values["evidence"]
    values["phase"] = Phase(values["phase"])
    values["terms"] = _terms(values["terms"])
    values["events"] = [Event(**event) for event in values["events"]]
    values["evidence"] = Evidence(
        _blocks(evidence["before"]),
        _blocks(evidence["during"]),
        {str(name): int(count) for name, count in evidence["frames"].items()},
    )
    return Promotion(**values)


def _rounded(blocks: Blocks) -> dict[str, dict[str, float]]:
    return {str(n): {name: round(reward, 5) for name, reward in block.items()} for n, block in blocks.items()}


def _blocks(told: dict[str, dict[str, float]]) -> Blocks:
    return {int(n): {str(name): float(reward) for name, reward in block.items()} for n, block in told.items()}
