"""The settings files of a site's processes, made from its register: what each needs to find and trust the broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from edge_broker_side.identity.register import SERVER, Register, SiteRegister
from edge_broker_side.identity.signing import Signer, public_key_path
from wire.channels import Role

WORKER, RECORDER, POLICY, OPERATOR, VIEWER = "edge-1", "recorder", "policy", "operator", "viewer"
ROLLOUT = "rollout"
ACCOUNTS: Mapping[str, Role] = {
    WORKER: Role.WORKER,
    RECORDER: Role.RECORDER,
    POLICY: Role.POLICY,
    ROLLOUT: Role.ROLLOUT,
    OPERATOR: Role.OPERATOR,
    VIEWER: Role.SUBSCRIBER,
}
"""The accounts every site begins with."""
INSECURE = """\
# INSECURE: a plain site has no certificates, no accounts and no encryption. Whoever reaches its broker can read every
# picture and result, and make devices do what he likes. Made by splitfleet site init --plain.
"""


@dataclass(frozen=True, slots=True)
class SiteFiles:
    """Where the settings of a site lie, and what stands in them."""

    folder: Path
    register: Register
    insecure: bool = False
    """A plain site that may listen beyond this machine all the same."""

    def path(self, process: str) -> Path:
        """Return a process's settings file."""
        return self.folder / f"{process}.toml"

    def write(self) -> tuple[Path, ...]:
        """Write the files that are not there yet, and return them: what somebody has changed stays."""
        Signer.of_site(self.folder)  # devices are flashed with its public half
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
            ROLLOUT: {
                **common,
                "name": ROLLOUT,
                "folder": str(self.folder / "rollouts"),
                "key": str(public_key_path(self.folder)),
                "link": self.link(ROLLOUT),
            },
            OPERATOR: {**common, "link": self.link(OPERATOR)},
            VIEWER: {**common, "link": self.link(VIEWER)},
        }
        head = b"" if self.register.secure else INSECURE.encode()
        return tuple(_written(head, ((self.path(process), document) for process, document in documents.items())))

    def link(self, account: str) -> dict[str, Any]:
        """Return the table ``[link]`` of an account."""
        link: dict[str, Any] = {"host": self.register.hosts[0], "port": self.register.port}
        if self.register.secure:
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
        if not self.register.secure:
            return {**document, **({"host": "0.0.0.0", "insecure": True} if self.insecure else {"host": "127.0.0.1"})}
        return {
            **document,
            "host": "0.0.0.0",
            "register": str(self.folder),
            "acl_file": str(held.acl),
            "tls": {
                "certificate": str(held.certificate(SERVER)),
                "key": str(held.key(SERVER)),
                "client_ca": str(held.ca),
                "revoked": str(held.revoked),
            },
        }


def _written(head: bytes, documents: Iterable[tuple[Path, Mapping[str, Any]]]) -> Iterable[Path]:
    for path, document in documents:
        if not path.exists():
            path.write_bytes(head + tomli_w.dumps(document).encode())
            yield path
