"""What README and docs say is there: links lead somewhere, commands exist, settings files load."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_client.settings import DeviceSettings
from edge_broker_side.broker import BrokerSettings
from edge_broker_side.recorder import RecorderSettings
from edge_broker_side.worker import WorkerSettings
from policy.service import PolicySettings
from tools.cli import build
from wire.settings import load_settings

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS = {
    "device.toml": DeviceSettings,
    "worker.toml": WorkerSettings,
    "recorder.toml": RecorderSettings,
    "policy.toml": PolicySettings,
    "broker.toml": BrokerSettings,
}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`]+)`")


def _named(paths: list[Path]) -> list[Any]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def _prose(text: str) -> str:
    return _FENCE.sub("", text)


def _anchors(text: str) -> set[str]:
    """Return the anchors that a forge makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", _prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _fenced(text: str) -> Iterator[list[str]]:
    """Yield the words of every line a reader would type: without comments, prompts' continuations joined."""
    for language, block in _FENCE.findall(text):
        if language in ("", "sh", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if not re.search("[─│┌└▶◀]", line):
                    words = line.partition("#")[0].partition(" > ")[0]
                    try:
                        yield shlex.split(words)
                    except ValueError:  # a formula, not a command
                        continue


def _inline(text: str) -> Iterator[list[str]]:
    for code in _INLINE.findall(_prose(text)):
        yield " ".join(code.split()).split(" ")


def _command(words: list[str]) -> tuple[Any, str, list[str]]:
    """Follow the words of a command line through the groups; return the command, its name and what is left."""
    command, rest, path = build(), words[1:], "splitfleet"
    while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        with command.make_context(path, rest, resilient_parsing=True) as context:
            name, command, rest = command.resolve_command(context, rest)
        path = f"{path} {name}"
    return command, path, rest


def _options(command: Any, path: str) -> set[str]:
    if path == "splitfleet models build":  # hands everything on to a process of its own
        told = subprocess.run(
            [sys.executable, "-m", "tflite_models.builder", "--help"], capture_output=True, text=True, check=True
        )
        return set(re.findall(r"--[\w-]+", told.stdout))
    return {"--help"} | {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("document", _named(DOCUMENTS))
def test_relative_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(_prose(document.read_text(encoding="utf-8"))):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), f"{link}: no such heading"


@pytest.mark.parametrize("document", _named(DOCUMENTS))
def test_every_command_exists_with_its_options(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for words, whole in [*((w, True) for w in _fenced(text)), *((w, False) for w in _inline(text))]:
        if words[:1] != ["splitfleet"] or len(words) == 1 or "…" in words[1]:
            continue
        command, path, rest = _command(words)
        known = _options(command, path)
        for word in rest:
            assert not word.startswith("--") or word.partition("=")[0] in known, f"{' '.join(words)}: no {word}"
        if whole and "…" not in rest and "--help" not in rest:
            command.make_context(path, list(rest)).close()


@pytest.mark.parametrize("document", _named(DOCUMENTS))
def test_every_target_and_module_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in [*_fenced(text), *_inline(text)]:
        if words[:1] == ["make"] and len(words) > 1:
            assert words[1] in targets, f"no target {words[1]}"
        if words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), f"no module {words[2]}"


def test_every_settings_file_of_the_operations_page_loads(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^### (\w+\.toml)\n+```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert shown.keys() == SETTINGS.keys()
    assert text.count("```toml") == len(shown), "a block stands outside its heading"
    for name, block in shown.items():
        path = tmp_path / name
        path.write_text(block, encoding="utf-8")
        load_settings(SETTINGS[name], path)
