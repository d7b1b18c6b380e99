"""What mosquitto's log tells of attempts to do what one may not: who tried what, and how often. Pure."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from enum import StrEnum

MAX_ACCOUNTS = 1000
"""Accounts told apart; the attempts of further ones are counted together."""
OTHERS = "others"


class Attempt(StrEnum):
    """What was tried and refused."""

    NO_CERTIFICATE = "no-certificate"
    BAD_CERTIFICATE = "bad-certificate"
    """Of another authority, revoked, or run out: mosquitto does not say which."""
    NO_TLS = "no-tls"
    TLS_FAILED = "tls-failed"
    """Any other handshake that failed: an old version of TLS, or a client that does not trust this broker."""
    NOT_AUTHORISED = "not-authorised"
    """An account that is not known, or a wrong password."""
    PUBLISH = "publish"
    """On a topic that the account may not write."""
    SUBSCRIBE = "subscribe"
    """To more than the account may read; it hears what it may read, and nothing else."""


WORDS: Mapping[Attempt, str] = {
    Attempt.NO_CERTIFICATE: "came without a certificate",
    Attempt.BAD_CERTIFICATE: "a certificate of another site, revoked, or run out",
    Attempt.NO_TLS: "spoke no TLS",
    Attempt.TLS_FAILED: "could not agree on TLS",
    Attempt.NOT_AUTHORISED: "an unknown account, or a wrong password",
    Attempt.PUBLISH: "tried to say what it may not",
    Attempt.SUBSCRIBE: "asked to hear what it may not",
}

Refusals = Counter[tuple[Attempt, str]]
"""How often, by what was tried and the account that proved itself; empty where none did."""

_STAMP = rb"(?:\S+: )?"
DEBUG = re.compile(
    rb"^" + _STAMP + rb"(?:(?:Received|Sending) [A-Z]+ (?:from|to) |\t|No will message|Will message specified"
    rb"|New connection from |New client connected from |Client \S+ (?:disconnected|closed its connection))[^\n]*\n",
    re.MULTILINE,
)
"""Lines that say of every packet and connection: they are asked for only because refusals stand among them."""
_CONNACK = re.compile(_STAMP + rb"Sending CONNACK to \S+ \(0, (?:4|5|134|135)\)")
_DENIED = re.compile(_STAMP + rb"Denied PUBLISH from (\S+) \(")
_SUBSCRIBED = re.compile(_STAMP + rb"(\S+) [012] (\S+)$")
_TLS = re.compile(_STAMP + rb"(?:OpenSSL Error\[0\]|Client connection from \S+ failed): error:[0-9A-F]+:([^\n]*)")
_TLS_REASONS = (
    (b"peer did not return a certificate", Attempt.NO_CERTIFICATE),
    (b"certificate verify failed", Attempt.BAD_CERTIFICATE),
    (b"wrong version number", Attempt.NO_TLS),
    (b"http request", Attempt.NO_TLS),
)
_HUNG_UP = b"unexpected eof"
"""Somebody only looked whether the port is open."""


class Rights:
    """What accounts may read, as the broker's ACL file says."""

    def __init__(self, acl: str) -> None:
        self._filters: dict[str, list[str]] = defaultdict(list)
        self._patterns: list[str] = []
        account = None
        for line in acl.splitlines():
            word, _, rest = line.strip().partition(" ")
            access, _, topic = rest.partition(" ")
            if word == "user":
                account = rest
            elif word in ("topic", "pattern") and access != "write":
                held = self._patterns if word == "pattern" else self._filters[account or ""]
                held.append(topic if access in ("read", "readwrite") else rest)

    def may_subscribe(self, account: str, wanted: str) -> bool:
        """Whether everything that a filter matches may be read by an account."""
        if wanted.startswith("$share/"):
            wanted = wanted.split("/", 2)[-1]
        own = (pattern.replace("%u", account).replace("%c", account) for pattern in self._patterns)
        return any(_covers(allowed, wanted) for allowed in itertools.chain(self._filters.get(account, ()), own))


def refused(lines: bytes, rights: Rights | None) -> Iterator[tuple[Attempt, str]]:
    """Yield what whole lines of mosquitto's log tell of refusals, with the account; ``rights`` judge subscriptions."""
    for _ in _CONNACK.finditer(lines):
        yield Attempt.NOT_AUTHORISED, ""
    for line in DEBUG.sub(b"", lines).splitlines():
        if found := _DENIED.match(line):
            yield Attempt.PUBLISH, found[1].decode(errors="replace")
        elif found := _TLS.match(line):
            if _HUNG_UP not in found[1]:
                reasons = (kind for words, kind in _TLS_REASONS if words in found[1])
                yield next(reasons, Attempt.TLS_FAILED), ""
        elif rights is not None and (found := _SUBSCRIBED.match(line)):
            account, wanted = (part.decode(errors="replace") for part in found.groups())
            if not rights.may_subscribe(account, wanted):
                yield Attempt.SUBSCRIBE, account


def for_people(lines: bytes) -> bytes:
    """Return the lines that belong into a log: all but those of every packet and subscription."""
    kept = DEBUG.sub(b"", lines).splitlines(keepends=True)
    return b"".join(line for line in kept if not _SUBSCRIBED.match(line.rstrip()))


def add(counts: Refusals, attempt: Attempt, account: str) -> None:
    """Count one more; however many accounts there are, the counter stays bounded."""
    if (attempt, account) not in counts and len(counts) >= MAX_ACCOUNTS:
        account = OTHERS
    counts[attempt, account] += 1


def _covers(allowed: str, wanted: str) -> bool:
    """Whether the one filter matches all that the other does."""
    for ours, theirs in itertools.zip_longest(allowed.split("/"), wanted.split("/")):
        if ours == "#":
            return True
        if ours is None or theirs in (None, "#") or ours not in ("+", theirs):
            return False
    return True
