"""Looks at a site for ``splitfleet site status``: broker, accounts, certificates, and who was refused."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

from edge_broker_side.broker_config import BrokerSettings
from edge_broker_side.broker_log import read_counts
from edge_broker_side.identity.authority import facts
from edge_broker_side.identity.register import SERVER, Register, SiteRegister
from edge_broker_side.identity.site_files import OPERATOR, SiteFiles
from edge_broker_side.refusals import WORDS, Attempt
from tools.operator_link import NotReached, OperatorSettings
from tools.output import console, print_table
from tools.site import MODES, mode
from tools.site_link import SiteLink
from wire.errors import WireError
from wire.settings import load_settings

SOON_DAYS = 60
"""A certificate that ends within so many days is told of: time to reach boards that are not on a network always."""
PATIENCE_S = 3.0
"""How long the broker may take to answer."""


def look(folder: Path, now: datetime.datetime) -> dict[str, Any]:
    """Return all there is to know of a site, as JSON has it; raises ``IdentityError`` where there is none."""
    held = SiteRegister(folder)
    register = held.read()
    files = SiteFiles(folder, register)
    rows = [
        {
            "account": account,
            "role": register.accounts[account].role if account in register.accounts else account,
            "revoked": account in register.accounts and register.accounts[account].revoked_s is not None,
            "days_left": None if end is None else (end - now).days,
        }
        for account, end in _ends(held, register).items()
    ]
    answer = _answer(files)
    return {
        "site": register.site,
        "mode": mode(register),
        "folder": str(folder),
        "hosts": list(register.hosts),
        "port": register.port,
        "broker_answers": answer is None,
        "broker_problem": answer,
        "acl_up_to_date": held.up_to_date,
        "accounts": rows,
        "revoked": sum(bool(row["revoked"]) for row in rows),
        "refused": _refused(files),
    }


def show(told: dict[str, Any]) -> None:
    """Print it."""
    out = console()
    out.print(f"site {told['site']}: broker {told['hosts'][0]}:{told['port']}, {MODES[told['mode']]}", soft_wrap=True)
    print_table(
        "",
        ("account", "role", "revoked", "days left"),
        [tuple(row.values()) for row in told["accounts"]],
    )
    if told["refused"]:
        print_table(
            "refused by the broker since the site was made",
            ("account", "what", "times"),
            [
                (row["account"] or "nobody known", WORDS[Attempt(row["attempt"])], row["count"])
                for row in told["refused"]
            ],
        )
    out.print(told["broker_problem"] or "the broker answers", soft_wrap=True, markup=False)
    if not told["acl_up_to_date"]:
        out.print("the ACL is of an older release: start the broker again, which brings it up to date")
    soon = [r["account"] for r in told["accounts"] if not r["revoked"] and (r["days_left"] or SOON_DAYS) < SOON_DAYS]
    if soon:
        out.print(f"certificates that end soon: {', '.join(soon)}; see docs/fleet.md, rotating certificates")


def _ends(held: SiteRegister, register: Register) -> dict[str, datetime.datetime | None]:
    """Return when certificates end, by account; ``None``: there is none."""
    if not register.secure:
        return dict.fromkeys(register.accounts)
    return {
        "authority": facts(held.ca.read_bytes()).expires,
        SERVER: facts(held.certificate(SERVER).read_bytes()).expires,
        **{n: datetime.datetime.fromtimestamp(a.expires_s, datetime.UTC) for n, a in register.accounts.items()},
    }


def _answer(files: SiteFiles) -> str | None:
    """Try the broker; return why it does not answer, or ``None``."""
    try:
        settings = load_settings(OperatorSettings, files.path(OPERATOR))
        link = dataclasses.replace(settings.link, connect_timeout_s=min(PATIENCE_S, settings.link.connect_timeout_s))
        with SiteLink(dataclasses.replace(settings, link=link), (), lambda *_: None):
            return None
    except NotReached as error:
        return str(error)
    except WireError as error:
        return f"the broker cannot be tried: {error}"


def _refused(files: SiteFiles) -> list[dict[str, Any]]:
    """Return what the broker on this machine has counted, most frequent first."""
    try:
        folder = Path(load_settings(BrokerSettings, files.path("broker")).folder)
    except WireError:
        return []
    counts = read_counts(folder)
    return [{"attempt": str(what), "account": account, "count": n} for (what, account), n in counts.most_common()]
