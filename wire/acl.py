"""The broker's ACL file, generated from the channel table: each account may do what its role's rows say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from wire.channels import CHANNELS, JSON, ROOT, Channel, Role, check_name
from wire.errors import TopicError

DISCOVERY_PREFIX = "homeassistant"
"""Where Home Assistant looks for discovery messages unless it is told otherwise."""

_PREFIX = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\Z")
_OWN: Mapping[Role, str] = {Role.DEVICE: "", Role.WORKER: "worker-"}
"""Roles whose account is the ``<name>`` in the topics of channels that begin so; in others the name is anybody's."""

_JSON_READERS = (Role.SUBSCRIBER, Role.OPERATOR)


def acl_file(site: str, accounts: Mapping[str, Role], discovery_prefix: str = DISCOVERY_PREFIX) -> str:
    """Return an ACL file of mosquitto for the accounts of one site.

    A device reads and writes only its own topics; a worker reads the activations and writes the results of every
    device, but no other worker's state; a mirror writes JSON topics and the site's discovery messages. Accounts not
    named here may do nothing. Raises ``TopicError`` for bad names.
    """
    check_name(site, "site")
    lines = [f"# Generated from the channel table ({ROOT}); accounts not named here may do nothing."]
    for account, role in sorted(accounts.items()):
        check_name(account, "account")
        lines += ["", f"# {role}", f"user {account}", *_rules(site, account, role)]
        if role is Role.MIRROR:
            lines.append(f"topic write {discovery_topic(discovery_prefix, site, '+')}")
            lines.append(f"topic read {birth_topic(discovery_prefix)}")
    return "\n".join(lines) + "\n"


def discovery_topic(prefix: str, site: str, device: str) -> str:
    """Return where Home Assistant finds a device: the site is the topic's node id, so that an ACL can tell sites apart.

    ``device`` may be ``+``. Raises ``TopicError`` for a bad prefix or name.
    """
    name = device if device == "+" else check_name(device, "device")
    return f"{check_prefix(prefix)}/device/splitfleet-{check_name(site, 'site')}/{name}/config"


def birth_topic(prefix: str) -> str:
    """Return where Home Assistant says ``online`` whenever it has started."""
    return f"{check_prefix(prefix)}/status"


def check_prefix(prefix: str) -> str:
    """Return ``prefix``; raises ``TopicError`` unless it is levels of letters, digits, '_' and '-' outside our own."""
    if not _PREFIX.match(prefix) or prefix.partition("/")[0] == ROOT.partition("/")[0]:
        raise TopicError(f"discovery prefix '{prefix}': use letters, digits, '_' and '-', such as {DISCOVERY_PREFIX}")
    return prefix


def _rules(site: str, account: str, role: Role) -> Iterator[str]:
    for channel in CHANNELS.values():
        access = _access(channel, role)
        if access:
            name = account if _is_own(channel, role) else "+"
            yield f"topic {access} {ROOT}/{site}/{name}/{channel.name}"
        json_access = _json_access(channel, role)
        if json_access:
            yield f"topic {json_access} {ROOT}/{site}/+/{channel.name}/{JSON}"


def _access(channel: Channel, role: Role) -> str:
    writes, reads = role in channel.writers, role in channel.readers
    if writes and reads:
        return "readwrite"
    return "write" if writes else "read" if reads else ""


def _json_access(channel: Channel, role: Role) -> str:
    """A mirror writes, people's programs read; processes have the originals."""
    if not channel.as_json:
        return ""
    if role is Role.MIRROR:
        return "write"
    return "read" if role in _JSON_READERS and role in channel.readers else ""


def _is_own(channel: Channel, role: Role) -> bool:
    prefix = _OWN.get(role)
    return prefix is not None and channel.name.startswith(prefix)
