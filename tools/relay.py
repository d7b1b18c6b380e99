"""A TCP relay that makes a local connection feel like a slow, distant or broken link.

All relays of a process share one thread with one event loop. Kernel buffers are kept small and a connection takes in
no more than its link's queue holds, so a sender faster than its link is held back by TCP, as on a real link.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tools.shaping import SEGMENT_BYTES, Change, LinkShape, Outage, Pacer

KERNEL_BUFFER_BYTES = 32 * 1024
CONNECT_TIMEOUT_S = 5.0


class _LoopThread:
    """The one event loop of all relays; it lives as long as one of them runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def enter(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            self._users += 1
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
                self._thread.start()
            return self._loop

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._loop is None or self._thread is None:
                return
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None


_loops = _LoopThread()


@dataclass(slots=True, eq=False)
class _Direction:
    """One direction of one connection."""

    name: str
    source: socket.socket
    sink: socket.socket
    pacer: Pacer
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False


class Relay:
    """One device's link: listens on a port of its own and passes every connection on to the target.

    The rate holds for each connection by itself. Methods may be called from any thread but the relays' own.
    """

    def __init__(self, target_host: str, target_port: int, link: LinkShape, seed: int) -> None:
        self.counters: Counter[str] = Counter()
        """``connections``, ``refused``, ``cut``, ``uplink_bytes``, ``downlink_bytes``."""
        self._target = (target_host, target_port)
        self._link = link
        self._rng = random.Random(seed)
        self._down = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: dict[asyncio.Task[None], tuple[_Direction, _Direction]] = {}
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def link(self) -> LinkShape:
        """The shape in force."""
        return self._link

    @property
    def down(self) -> bool:
        """Whether the link is in an outage."""
        return self._down

    def start(self) -> int:
        """Listen on a free port of the loopback and return it."""
        listener = socket.create_server(("127.0.0.1", 0))
        _shrink_buffers(listener)
        listener.setblocking(False)
        self._listener = listener
        self._loop = _loops.enter()
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._accept(listener)))
        port: int = listener.getsockname()[1]
        return port

    def set(self, link: LinkShape) -> None:
        """Change the link's shape from the next segment on."""
        self._call(lambda: self._apply(link))

    def outage(self, on: bool, cut: bool = True) -> None:
        """Take the link down (connections are cut, or stall) or bring it back; while down new ones are refused."""
        self._call(lambda: self._apply(Outage(on, cut)))

    def schedule(self, changes: Iterable[tuple[float, Change]]) -> None:
        """Apply each change ``at_s`` seconds from now."""
        planned = list(changes)

        def plan() -> None:
            loop = asyncio.get_running_loop()
            self._timers += [loop.call_later(at_s, self._apply, change) for at_s, change in planned]

        self._call(plan)

    def stop(self) -> None:
        """Cut every connection and close the port; safe to call twice."""
        if self._loop is None:
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop = None
        _loops.leave()

    def _call(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the loop's thread and wait until it has."""
        if self._loop is None:
            raise RuntimeError("the relay has not been started, or has been stopped")
        done: Future[None] = Future()

        def run() -> None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - handed to the caller, who waits for it
                done.set_exception(error)
            else:
                done.set_result(None)

        self._loop.call_soon_threadsafe(run)
        done.result()

    # -- in the loop's thread --------------------------------------------------------------------------------------

    def _apply(self, change: Change) -> None:
        if isinstance(change, LinkShape):
            self._link = change
        else:
            self._down = change.down
            if change.down and change.cut:
                for task in list(self._connections):
                    self.counters["cut"] += 1
                    task.cancel()
        now = asyncio.get_running_loop().time()
        for pair in self._connections.values():
            for direction in pair:
                direction.pacer.reshape(*self._shape_of(direction.name))
                direction.pacer.set_down(self._down, now)
                direction.changed.set()
                direction.room.set()

    def _shape_of(self, name: str) -> tuple[float, float, float]:
        link = self._link
        rate_bps = link.uplink_bps if name == "uplink" else link.downlink_bps
        return rate_bps, link.delay_ms / 1e3, link.jitter_ms / 1e3

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(listener)
            if self._down:
                self.counters["refused"] += 1
                _reset(near)
            else:
                self._spawn(self._relay(near))

    async def _relay(self, near: socket.socket) -> None:
        far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        task = asyncio.current_task()
        assert task is not None
        finished = False
        try:
            for sock in (near, far):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _shrink_buffers(far)
            loop = asyncio.get_running_loop()
            await asyncio.wait_for(loop.sock_connect(far, self._target), CONNECT_TIMEOUT_S)
            up = _Direction("uplink", near, far, Pacer(*self._shape_of("uplink"), self._rng))
            down = _Direction("downlink", far, near, Pacer(*self._shape_of("downlink"), self._rng))
            self._connections[task] = (up, down)
            self.counters["connections"] += 1
            async with asyncio.TaskGroup() as group:
                for direction in (up, down):
                    group.create_task(self._take_in(direction))
                    group.create_task(self._give_out(direction))
            finished = True
        except* (OSError, TimeoutError):  # either end went away, or the target does not listen
            pass
        finally:
            self._connections.pop(task, None)
            for sock in (near, far):
                if finished:
                    sock.close()
                else:
                    _reset(sock)

    async def _take_in(self, direction: _Direction) -> None:
        loop = asyncio.get_running_loop()
        while not direction.ended:
            room = direction.pacer.room()
            if room == 0:
                direction.room.clear()
                await direction.room.wait()
                continue
            data = await loop.sock_recv(direction.source, min(room, KERNEL_BUFFER_BYTES))
            direction.pacer.push(data, loop.time())
            direction.ended = not data
            direction.changed.set()

    async def _give_out(self, direction: _Direction) -> None:
        loop = asyncio.get_running_loop()
        while True:
            direction.changed.clear()
            data = direction.pacer.poll(loop.time())
            if data:
                direction.room.set()
                await loop.sock_sendall(direction.sink, data)
                self.counters[f"{direction.name}_bytes"] += len(data)
                continue
            if direction.ended and not len(direction.pacer):
                direction.sink.shutdown(socket.SHUT_WR)
                return
            next_at = direction.pacer.next_at()
            timer = None if next_at == math.inf else loop.call_at(next_at, direction.changed.set)
            await direction.changed.wait()
            if timer is not None:
                timer.cancel()

    async def _close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()


def _shrink_buffers(sock: socket.socket) -> None:
    """Keep the kernel from queueing much; with segments as on Ethernet, for loopback's would not fit the buffers."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)


def _reset(sock: socket.socket) -> None:
    """Close at once, and tell the peer so."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
