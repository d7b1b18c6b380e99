"""The door of the dashboard: which hosts and visitors are let in, before anything else sees a request."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

from markupsafe import Markup
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

COOKIE = "splitfleet-dashboard"
SESSIONS = 200
SESSION_S = 12 * 3600.0
ATTEMPTS = 5
ATTEMPTS_OF_ALL = 60
WINDOW_S = 60.0
"""Wrong passwords per window and address, and of all addresses together."""
ADDRESSES = 1000
MAX_FORM_BYTES = 4096
HEADERS = {
    # NiceGUI compiles its templates in the browser. Nothing may be fetched from, or sent to, another host.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}
LOGIN = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>splitfleet: sign in</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 90vh; margin: 0; }}
form {{ display: grid; gap: .75rem; width: min(20rem, 86vw); }}
h1 {{ font-size: 1.15rem; margin: 0; }}
input, button {{ font: inherit; padding: .55rem .7rem; border-radius: 6px; border: 1px solid #7b8794; }}
button {{ background: #1f6f8b; color: #fff; border-color: #1f6f8b; cursor: pointer; }}
p {{ margin: 0; color: #d6453d; min-height: 1.5em; }}
</style></head><body>
<form method="post" action="/login">
<h1>splitfleet · site {site}</h1>
<input name="username" value="viewer" autocomplete="username" hidden>
<label for="password">Password of the dashboard</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>
<button>Sign in</button><p role="alert">{problem}</p></form></body></html>""")


class Attempts:
    """Counts wrong passwords, so that guessing takes for ever. Pure; bounded in addresses."""

    def __init__(self) -> None:
        self._all: deque[float] = deque(maxlen=ATTEMPTS_OF_ALL)
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str, now_s: float) -> float:
        """Return how long this address must wait before its next try; 0: not at all."""
        own: Sequence[float] = self._by_address.get(address, ())
        waits = [
            times[0] + WINDOW_S - now_s
            for times, most in ((own, ATTEMPTS), (self._all, ATTEMPTS_OF_ALL))
            if len(times) >= most
        ]
        return max([0.0, *waits])

    def failed(self, address: str, now_s: float) -> None:
        """Note a wrong password."""
        own = self._by_address.setdefault(address, deque(maxlen=ATTEMPTS))
        self._by_address.move_to_end(address)
        if len(self._by_address) > ADDRESSES:
            self._by_address.popitem(last=False)
        own.append(now_s)
        self._all.append(now_s)


class Sessions:
    """Who has signed in: random tokens known to this process alone. Pure; bounded, the oldest goes first."""

    def __init__(self, token: Callable[[], str] = secrets.token_urlsafe) -> None:
        self._token = token
        self._ends: OrderedDict[str, float] = OrderedDict()

    def begin(self, now_s: float) -> str:
        """Return the token of a new session."""
        token = self._token()
        self._ends[token] = now_s + SESSION_S
        if len(self._ends) > SESSIONS:
            self._ends.popitem(last=False)
        return token

    def holds(self, token: str, now_s: float) -> bool:
        """Return whether a token is of a session that goes on."""
        ends_s = self._ends.get(token)
        return ends_s is not None and now_s < ends_s


class Door:
    """ASGI: lets through what may pass to ``app``, http and websocket alike."""

    def __init__(
        self,
        app: ASGIApp,
        site: str,
        *,
        password: str | None,
        hosts: frozenset[str] | None,
        clock: Callable[[], float],
    ) -> None:
        """``hosts``: names by which the page may be asked for; ``None``: any, since the password protects it."""
        self._app = app
        self._site = site
        self._password = password
        self._hosts = hosts
        self._clock = clock
        self._attempts = Attempts()
        self._sessions = Sessions()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or pass on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["type"] == "websocket":
            if self._known(headers) and _same_origin(headers) and self._signed_in(headers):
                await self._app(scope, receive, send)
            else:
                await receive()  # websocket.connect; closing before accepting is answered with 403
                await send({"type": "websocket.close", "code": 1008})
            return
        await self._http(scope, headers, receive, _with_headers(send))

    async def _http(self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        if not self._known(headers):
            answer: Response = PlainTextResponse("This page is not served under that name.\n", 421)
        elif self._password is not None and scope["path"] == "/login":
            answer = await self._login(Request(scope, receive))
        elif self._signed_in(headers) and _same_origin(headers):
            await self._app(scope, receive, send)
            return
        elif scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            answer = RedirectResponse("/login", 303)
        else:
            answer = PlainTextResponse("Sign in first.\n", 401)
        await answer(scope, receive, send)

    async def _login(self, request: Request) -> Response:
        if request.method != "POST":
            return self._form("", 200)
        given = await _password_of(request)  # before counting: from here on nothing may come in between
        address, now_s = request.client.host if request.client else "", self._clock()
        wait_s = self._attempts.wait_s(address, now_s)
        if wait_s > 0:
            answer = self._form(f"Too many wrong passwords: try again in {wait_s:.0f} s.", 429)
            answer.headers["retry-after"] = str(int(wait_s) + 1)
            return answer
        if self._password is None or not hmac.compare_digest(given.encode(), self._password.encode()):
            self._attempts.failed(address, now_s)
            log.warning("a wrong password from %s", address)
            return self._form("That is not the password.", 403)
        done = RedirectResponse("/", 303)
        done.set_cookie(
            COOKIE,
            self._sessions.begin(now_s),
            max_age=int(SESSION_S),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return done

    def _form(self, problem: str, status: int) -> Response:
        page = LOGIN.format(site=self._site, problem=problem)
        return HTMLResponse(page, status, {"cache-control": "no-store"})

    def _known(self, headers: Mapping[str, str]) -> bool:
        """A page of elsewhere whose name was made to lead to this machine must not read what is here."""
        return self._hosts is None or _host_of(headers.get("host", "")) in self._hosts

    def _signed_in(self, headers: Mapping[str, str]) -> bool:
        if self._password is None:
            return True
        # By hand: SimpleCookie gives up at the first cookie of somebody else that it does not like.
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return any(name == COOKIE and self._sessions.holds(value, self._clock()) for name, _, value in pairs)


def _host_of(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _same_origin(headers: Mapping[str, str]) -> bool:
    """Browsers name the page that opened a connection; it must be one of ours."""
    origin = headers.get("origin")
    return origin is None or origin.partition("//")[2].lower() == headers.get("host", "").lower()


async def _password_of(request: Request) -> str:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            return ""
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return fields.get("password", [""])[0]


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
