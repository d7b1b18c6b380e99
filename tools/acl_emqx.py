"""``python -m tools.acl_emqx SITE``: a site's ACL for an EMQX broker, from the same channel table as mosquitto's."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from wire.acl import acl_file
from wire.channels import ROOT, Role, check_name

ACCOUNTS: Mapping[str, Role] = {
    "worker": Role.WORKER,
    "recorder": Role.RECORDER,
    "policy": Role.POLICY,
    "rollout": Role.ROLLOUT,
    "operator": Role.OPERATOR,
    "viewer": Role.SUBSCRIBER,
    "mirror": Role.MIRROR,
}
"""Account (common name of the certificate) of each role. All workers share one: pods come and go. A device's account is
its own name."""
_VERBS = {"write": ("publish",), "read": ("subscribe",), "readwrite": ("publish", "subscribe")}
_ANY = "x"


def emqx_acl(site: str) -> str:
    """Return the text of ``acl.conf``; what it does not allow is refused."""
    check_name(site, "site")
    lines = [f"%% Generated from the channel table ({ROOT}) by python -m tools.acl_emqx {site}"]
    for account, role in ACCOUNTS.items():
        who = f'{{username, "{account}"}}'
        lines += ["", *_allowed(site, role, who, "+"), f'{{deny, {who}, all, ["#"]}}.']
    lines += ["", *_allowed(site, Role.DEVICE, "all", "${username}"), "", "{deny, all}."]
    return "\n".join(lines) + "\n"


def _allowed(site: str, role: Role, who: str, own: str) -> Iterator[str]:
    topics: dict[str, list[str]] = {"publish": [], "subscribe": []}
    for line in acl_file(site, {_ANY: role}).splitlines():
        word, _, rest = line.partition(" ")
        if word == "topic":
            access, _, topic = rest.partition(" ")
            for verb in _VERBS[access]:
                topics[verb].append(topic.replace(f"/{_ANY}/", f"/{own}/"))
    for verb, held in topics.items():
        if held:
            inside = ",\n    ".join(f'"{topic}"' for topic in held)
            yield f"{{allow, {who}, {verb}, [\n    {inside}\n]}}."


if __name__ == "__main__":
    sys.stdout.write(emqx_acl(sys.argv[1]))
