"""How a command of a site's owner finds the site: its folder with the register, or a settings file alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_broker_side.identity.register import Register, SiteRegister
from edge_broker_side.identity.site_files import OPERATOR, WORKER, SiteFiles
from edge_broker_side.inventory import AccountFacts, Inventory
from edge_broker_side.worker import WorkerSettings
from tflite_models.catalog import ModelsError, load_catalog
from tools.operator_link import OperatorSettings
from tools.site import found
from wire.channels import Role
from wire.errors import WireError
from wire.settings import load_settings


@dataclass(frozen=True, slots=True)
class Access:
    """As whom to come, and what lies on this machine of the site; ``None``: it is elsewhere."""

    settings: OperatorSettings
    folder: Path | None = None
    register: Register | None = None

    @property
    def files(self) -> SiteFiles | None:
        """The site's settings files."""
        return None if self.folder is None or self.register is None else SiteFiles(self.folder, self.register)

    def inventory(self) -> Inventory:
        """Return an inventory that knows the site's accounts and versions."""
        return Inventory(self.catalog(), self.accounts())

    def accounts(self) -> Mapping[str, AccountFacts] | None:
        """Return the accounts of devices, where the register is here."""
        if self.register is None:
            return None
        return {
            name: AccountFacts(account.expires_s, account.revoked_s is not None, account.tags)
            for name, account in self.register.accounts.items()
            if account.role == Role.DEVICE
        }

    def catalog(self) -> Mapping[str, str]:
        """Return the sha256 of the worker's versions by name; empty where its models are not here or not ready."""
        files = self.files
        if files is None:
            return {}
        try:
            settings = load_settings(WorkerSettings, files.path(WORKER))
            return {version.name: version.sha256 for version in load_catalog(Path(settings.models))}
        except (ModelsError, WireError):
            return {}


def access(site: str, folder: Path | None, settings: Path | None) -> Access:
    """Return how to reach a site; raises ``IdentityError`` or ``SettingsError`` saying what to do."""
    if settings is not None:
        return Access(load_settings(OperatorSettings, settings))
    where = found(site, folder)
    register = SiteRegister(where).read()
    file = SiteFiles(where, register).path(OPERATOR)
    return Access(load_settings(OperatorSettings, file), where, register)
