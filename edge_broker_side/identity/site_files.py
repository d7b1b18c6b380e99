"""The settings files of a site's processes, made from its register: what each needs to find and trust the broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from edge_broker_side.identity.register import SERVER, Register, SiteRegister
from wire.channels import Role

WORKER, RECORDER, POLICY, OPERATOR, VIEWER = "edge-1", "recorder", "policy", "operator", "viewer"
ACCOUNTS: Mapping[str, Role] = {
    WORKER: Role.WORKER,
    RECORDER: Role.RECORDER,
    POLICY: Role.POLICY,
    OPERATOR: Role.OPERATOR,
    VIEWER: Role.SUBSCRIBER,
}
"""The accounts every site begins with."""


@dataclass(frozen=True, slots=True)
class SiteFiles:
    """Where the settings of a site lie, and what stands in them."""

    folder: Path
    register: Register
    secure: bool = True

    def path(self, process: str) -> Path:
        """Return a process's settings file."""
        return self.folder / f"{process}.toml"

    def write(self) -> tuple[Path, ...]:
        """Write the files that are not there yet, and return them: what somebody has changed stays."""
        data = self.folder / "data"
        common = {"site": self.register.site}
        documents: dict[str, dict[str, Any]] = {
            "broker": self._broker(data / "broker"),
            WORKER: {**common, "name": WORKER, "models": str(data / "models"), "link": self.link(WORKER)},
            RECORDER: {
                **common,
                "name": RECORDER,
                "store": {"path": str(self.folder / "records.sqlite")},
                "link": self.link(RECORDER),
            },
            POLICY: {
                **common,
                "name": POLICY,
                "models": str(data / "models"),
                "profiles": str(data / "profiles"),
                "edge_profile": str(data / "profiles" / "edge" / "edge.json"),
                "link": self.link(POLICY),
            },
            OPERATOR: {**common, "link": self.link(OPERATOR)},
            VIEWER: {**common, "link": self.link(VIEWER)},
        }
        return tuple(_written((self.path(process), document) for process, document in documents.items()))

    def link(self, account: str) -> dict[str, Any]:
        """Return the table ``[link]`` of an account."""
        link: dict[str, Any] = {"host": self.register.hosts[0], "port": self.register.port}
        if self.secure:
            held = SiteRegister(self.folder)
            link["tls"] = {
                "ca": str(held.ca),
                "certificate": str(held.certificate(account)),
                "key": str(held.key(account)),
            }
        return link

    def _broker(self, folder: Path) -> dict[str, Any]:
        held = SiteRegister(self.folder)
        document: dict[str, Any] = {"folder": str(folder), "port": self.register.port}
        if not self.secure:
            return {**document, "host": self.register.hosts[0]}
        return {
            **document,
            "host": "0.0.0.0",
            "acl_file": str(held.acl),
            "tls": {
                "certificate": str(held.certificate(SERVER)),
                "key": str(held.key(SERVER)),
                "client_ca": str(held.ca),
                "revoked": str(held.revoked),
            },
        }


def _written(documents: Iterable[tuple[Path, Mapping[str, Any]]]) -> Iterable[Path]:
    for path, document in documents:
        if not path.exists():
            path.write_bytes(tomli_w.dumps(document).encode())
            yield path
