"""The broker's ACL file, generated from the channel table: each account may do what its role's rows say."""

from __future__ import annotations

from collections.abc import Mapping

from wire.channels import CHANNELS, ROOT, Channel, Role, check_name

_OWN: Mapping[Role, str] = {Role.DEVICE: "", Role.WORKER: "worker-"}
"""Roles whose account is the ``<name>`` in the topics of channels that begin so; in others the name is anybody's."""


def acl_file(site: str, accounts: Mapping[str, Role]) -> str:
    """Return an ACL file of mosquitto for the accounts of one site.

    A device reads and writes only its own topics; a worker reads the activations and writes the results of every
    device, but no other worker's state. Accounts not named here may do nothing. Raises ``TopicError`` for bad names.
    """
    check_name(site, "site")
    lines = [f"# Generated from the channel table ({ROOT}); accounts not named here may do nothing."]
    for account, role in sorted(accounts.items()):
        check_name(account, "account")
        lines += ["", f"# {role}", f"user {account}", *_rules(site, account, role)]
    return "\n".join(lines) + "\n"


def _rules(site: str, account: str, role: Role) -> list[str]:
    rules = []
    for channel in CHANNELS.values():
        access = _access(channel, role)
        if access:
            name = account if _is_own(channel, role) else "+"
            rules.append(f"topic {access} {ROOT}/{site}/{name}/{channel.name}")
    return rules


def _access(channel: Channel, role: Role) -> str:
    writes, reads = role in channel.writers, role in channel.readers
    if writes and reads:
        return "readwrite"
    return "write" if writes else "read" if reads else ""


def _is_own(channel: Channel, role: Role) -> bool:
    prefix = _OWN.get(role)
    return prefix is not None and channel.name.startswith(prefix)
