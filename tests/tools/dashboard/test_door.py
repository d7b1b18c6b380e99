"""The door: who is let in, who is not, and how guessing is slowed down."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest

from tools.dashboard.door import (
    ADDRESSES,
    ATTEMPTS,
    ATTEMPTS_OF_ALL,
    COOKIE,
    MAX_FORM_BYTES,
    SESSION_S,
    SESSIONS,
    WINDOW_S,
    Attempts,
    Door,
    Sessions,
)

PASSWORD = "correct horse"


@dataclass
class House:
    """A door before an app that says yes to everything; requests are put to it as a server would."""

    password: str | None = PASSWORD
    hosts: frozenset[str] | None = None
    now_s: float = 1000.0
    door: Door = field(init=False)

    def __post_init__(self) -> None:
        self.door = Door(_welcome, "plant", password=self.password, hosts=self.hosts, clock=lambda: self.now_s)

    def ask(
        self, path: str = "/", *, kind: str = "http", method: str = "GET", body: bytes = b"", **headers: str
    ) -> Any:
        told: list[Any] = []
        lines = [
            (name.replace("_", "-").encode(), value.encode())
            for name, value in {"host": "edge:8080", **headers}.items()
        ]
        scope = {
            "type": kind, "path": path, "raw_path": path.encode(), "query_string": b"", "method": method,
            "scheme": "http", "headers": lines, "client": ("10.0.0.9", 5), "server": ("edge", 8080),
        }  # fmt: skip

        async def receive() -> Any:
            return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            told.append(message)

        asyncio.run(self.door(scope, receive, send))
        return Answer(told)

    def sign_in(self, password: str) -> Answer:
        answer: Answer = self.ask("/login", method="POST", body=urlencode({"password": password}).encode())
        return answer


class Answer:
    """What came back."""

    def __init__(self, told: list[Any]) -> None:
        self.kind = told[0]["type"]
        self.status = told[0].get("status")
        self.headers: dict[str, str] = {name.decode(): value.decode() for name, value in told[0].get("headers", [])}
        self.text = b"".join(message.get("body", b"") for message in told).decode()

    @property
    def cookie(self) -> str:
        return self.headers["set-cookie"].partition(";")[0]


async def _welcome(scope: Any, _receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def test_nothing_is_inside_without_the_password() -> None:
    house = House()
    assert (house.ask().status, house.ask().text) == (401, "Sign in first.\n")
    page = house.ask("/device/cam-1", accept="text/html")
    assert (page.status, page.headers["location"]) == (303, "/login")
    assert house.ask("/_nicegui/3/static/nicegui.js").status == 401
    assert house.ask("/_nicegui_ws/socket.io/", kind="websocket").kind == "websocket.close"
    assert house.ask(cookie=f"{COOKIE}=guessed").status == 401
    assert house.ask(cookie="\x01=;;;,,").status == 401


def test_with_it_everything_is_and_the_cookie_is_no_use_to_scripts_or_others() -> None:
    house = House()
    assert "plant" in house.ask("/login").text
    done = house.sign_in(PASSWORD)
    assert (done.status, done.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= {part.strip() for part in done.headers["set-cookie"].split(";")}
    assert house.ask(cookie=done.cookie).text == "inside"
    assert house.ask(kind="websocket", cookie=done.cookie, origin="http://edge:8080").kind == "websocket.accept"
    assert house.ask(kind="websocket", cookie=done.cookie, origin="http://elsewhere").kind == "websocket.close"
    assert house.ask(cookie=done.cookie, origin="http://elsewhere").status == 401
    house.now_s += SESSION_S
    assert house.ask(cookie=done.cookie).status == 401


def test_a_wrong_password_is_told_and_five_are_enough() -> None:
    house = House()
    for _ in range(ATTEMPTS):
        answer = house.sign_in("wrong")
        assert (answer.status, "That is not the password." in answer.text) == (403, True)
        assert "set-cookie" not in answer.headers
    assert house.sign_in(PASSWORD).status == 429
    assert int(house.sign_in(PASSWORD).headers["retry-after"]) == int(WINDOW_S) + 1
    house.now_s += WINDOW_S
    assert house.sign_in(PASSWORD).status == 303


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"password", b"other=1", b"password=" + b"x" * 2 * MAX_FORM_BYTES])
def test_forms_that_are_none_are_a_wrong_password(body: bytes) -> None:
    assert House().ask("/login", method="POST", body=body).status == 403


def test_on_this_machine_alone_foreign_names_are_refused() -> None:
    """A page of elsewhere could have its name lead to 127.0.0.1 and read what is here."""
    house = House(password=None, hosts=frozenset({"localhost", "127.0.0.1", "::1"}))
    for host in ("localhost:8080", "127.0.0.1", "[::1]:8080", "LOCALHOST"):
        assert house.ask(host=host).text == "inside"
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[", "", "localhost@evil.example"):
        assert house.ask(host=host).status == 421
        assert house.ask(kind="websocket", host=host).kind == "websocket.close"
    assert house.ask(kind="websocket", host="localhost:1", origin="http://evil.example").kind == "websocket.close"


def test_every_answer_forbids_other_hosts_and_frames() -> None:
    house = House(password=None)
    policy = house.ask().headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy
    assert House().ask("/login").headers["x-content-type-options"] == "nosniff"


def test_attempts_are_bounded_by_address_and_altogether() -> None:
    attempts = Attempts()
    for n in range(ATTEMPTS):
        assert attempts.wait_s("a", float(n)) == 0
        attempts.failed("a", float(n))
    assert attempts.wait_s("a", 10.0) == WINDOW_S - 10 and attempts.wait_s("b", 10.0) == 0
    for n in range(ATTEMPTS_OF_ALL):
        attempts.failed(f"c{n}", 20.0)
    assert attempts.wait_s("b", 20.0) == WINDOW_S
    for n in range(2 * ADDRESSES):
        attempts.failed(f"d{n}", 30.0)
    assert len(attempts._by_address) == ADDRESSES


def test_sessions_are_bounded_the_oldest_goes() -> None:
    numbers = iter(range(10_000))
    sessions = Sessions(lambda: str(next(numbers)))
    tokens = [sessions.begin(0.0) for _ in range(SESSIONS + 1)]
    assert not sessions.holds(tokens[0], 1.0) and sessions.holds(tokens[1], 1.0) and sessions.holds(tokens[-1], 1.0)
    assert not sessions.holds("", 1.0)
    assert len({Sessions().begin(0.0) for _ in range(50)}) == 50


def test_guesses_sent_all_at_once_are_counted_like_any_others() -> None:
    house = House()
    held, statuses = asyncio.Event(), []

    async def guess() -> None:
        async def receive() -> Any:
            await held.wait()  # the head has come, the form is held back
            return {"type": "http.request", "body": b"password=wrong"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http", "path": "/login", "raw_path": b"/login", "query_string": b"", "method": "POST",
            "scheme": "http", "headers": [(b"host", b"edge:8080")], "client": ("10.0.0.9", 5), "server": ("edge", 8080),
        }  # fmt: skip
        await house.door(scope, receive, send)

    async def all_at_once() -> None:
        guesses = [asyncio.create_task(guess()) for _ in range(50)]
        await asyncio.sleep(0)
        held.set()
        await asyncio.gather(*guesses)

    asyncio.run(all_at_once())
    assert statuses.count(403) == ATTEMPTS
    assert statuses.count(429) == 50 - ATTEMPTS


def test_cookies_of_others_on_the_same_host_do_not_lock_anybody_out() -> None:
    house = House()
    cookie = house.sign_in(PASSWORD).cookie
    assert house.ask(cookie=f'prefs={{"a": 1}}; a[0]=1; {cookie}').status == 200
