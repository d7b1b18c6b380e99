"""The MQTT link: one thread that owns paho, and plain events for the process's loop thread.

The thread drives paho through its external-loop interface, so a publication reaches paho only when the socket has
taken the one before: the byte bound of the outbox is then the whole bound, for QoS 0 too. An exception anywhere in
paho or a callback ends the connection, is counted, and the thread connects anew.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import math
import random
import select
import socket
import ssl
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from wire.errors import WireError
from wire.inbox import Inbox
from wire.link import (
    Acknowledged,
    Connected,
    Disconnected,
    LinkSettings,
    NotSent,
    Received,
    Subscription,
    TlsSettings,
    Unsubscribed,
)
from wire.outbox import Outbox, Outgoing

log = logging.getLogger(__name__)

MAX_PACKET_BYTES = 16 * 1024 * 1024
"""Largest packet we accept; told to the broker so that it never sends a larger one."""
NOT_SENT_LOW_WATER_BYTES = 16 * 1024
"""Unsent bytes the kernel may hold: more would be a queue that nobody can drop the oldest from."""
TCP_NOTSENT_LOWAT = 25
SIOCOUTQNSD = 0x894B
IDLE_MS = 500
FAREWELL_S = 1.0
"""How long a clean goodbye may take before the socket is just closed."""
QOS1_WINDOW = 20
"""Unacknowledged QoS 1 publications at once; beyond it they wait in our outbox, so a reconnect cannot flood."""


class Link:
    """One client's connection. Every method may be called from any thread; events go to ``inbox``."""

    def __init__(
        self,
        settings: LinkSettings,
        client_id: str,
        inbox: Inbox,
        *,
        subscriptions: Sequence[Subscription] = (),
        will: Outgoing | None = None,
        will_delay_s: int = 0,
        clean_start: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._settings = settings
        self._inbox = inbox
        self._subscriptions = tuple(subscriptions)
        self._clean_start = clean_start
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._outbox = Outbox(settings.qos0_outbox_bytes, settings.qos1_outbox_bytes)
        self._unacked: dict[int, tuple[Outgoing, int, bool]] = {}
        self._max_packet_bytes = MAX_PACKET_BYTES
        self._window = QOS1_WINDOW
        self._session_present = False
        self._tokens = itertools.count(1)
        self._up = False
        self._up_since: float | None = None
        self._farewell = ""
        self._last_reason = ""
        self._unsubscribing = False
        self._stopping = threading.Event()
        self._client = self._make_client(client_id, will, will_delay_s)
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"link-{client_id}", daemon=True)

    # -- for the loop thread ---------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and not left since."""
        return self._up

    @property
    def alive(self) -> bool:
        """Whether the link's thread runs; False after ``start`` means the process should stop."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Publications queued here or not yet acknowledged."""
        with self._lock:
            return len(self._outbox) + len(self._unacked)

    @property
    def problem(self) -> str:
        """Why the last connection ended, or the last attempt failed; empty before the first did."""
        return self._last_reason

    def start(self) -> None:
        """Begin connecting; the broker may be down, and may come and go."""
        self._thread.start()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool = False,
        expires_ns: int | None = None,
        watch: bool = True,
    ) -> int | None:
        """Queue a publication and return its token, or ``None`` with a counter when it is refused.

        Events tell what becomes of it, unless ``watch`` is False: then nobody is woken for it.

        QoS 0 needs a connection and pushes out the oldest when full (each told by ``NotSent``); QoS 1 waits for the
        connection within its own bound.
        """
        with self._lock:
            token = next(self._tokens)
            item = Outgoing(topic, payload, qos, retain, expires_ns, token if watch else None)
            if item.size > self._max_packet_bytes:
                self.counters["refused_too_large"] += 1
                return None
            if qos == 0 and not self._up:
                self.counters["refused_offline"] += 1
                return None
            taken, evicted = self._outbox.add(item)
            self._not_sent(evicted, "evicted")
            if not taken:
                self.counters["refused_outbox_full"] += 1
                return None
        self._wake()
        return token

    def unsubscribe(self) -> None:
        """Give up every subscription, now and at connections to come; ``Unsubscribed`` follows when connected."""
        self._unsubscribing = True
        self._wake()

    def stop(self, drain_s: float = 2.0) -> None:
        """Send what is queued, at most ``drain_s`` long, disconnect cleanly and end the thread; may be called twice."""
        deadline = time.monotonic() + drain_s
        while self._up and self.waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stopping.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout=self._settings.connect_timeout_s + FAREWELL_S + 1)
        if not self._thread.is_alive():
            self._wake_r.close()
            self._wake_w.close()

    # -- the link's own thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff_s = self._settings.backoff_min_s
        while not self._stopping.is_set():
            self._up_since = None
            try:
                self._one_connection()
            except Exception:  # the outermost loop: the link must never die unnoticed
                self.counters["thread_errors"] += 1
                log.exception("the link failed and connects anew")
            # A connection that outlived the pause before it was a good one; a flapping one keeps backing off.
            if self._up_since is not None and time.monotonic() - self._up_since > backoff_s:
                backoff_s = self._settings.backoff_min_s
            self._stopping.wait(backoff_s * self._rng.uniform(0.5, 1.5))
            backoff_s = min(backoff_s * 2, self._settings.backoff_max_s)

    def _one_connection(self) -> None:
        reason = "internal error"
        try:
            self._connect()
            reason = self._serve()
        except (OSError, WireError) as error:  # refused, unreachable, TLS
            reason = f"{type(error).__name__}: {error}"
        finally:
            self._went_down(reason)

    def _connect(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._settings.session_expiry_s
        properties.ReceiveMaximum = self._settings.receive_maximum
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        self._farewell = ""
        self._client.connect(
            self._settings.host,
            self._settings.port,
            self._settings.keepalive_s,
            clean_start=self._clean_start,
            properties=properties,
        )

    def _serve(self) -> str:
        """Move bytes until the connection ends, and return why it did."""
        give_up_at = math.inf
        while (sock := self._client.socket()) is not None:
            if self._stopping.is_set():
                if give_up_at == math.inf:
                    self._client.disconnect()
                    give_up_at = time.monotonic() + FAREWELL_S
                elif time.monotonic() > give_up_at:  # a peer that does not read our farewell
                    break
            if self._unsubscribing and self._up and self._subscriptions:
                self._client.unsubscribe([s.filter for s in self._subscriptions])
                self._subscriptions = ()
            code = MQTTErrorCode.MQTT_ERR_SUCCESS
            if self._wait_for_socket(sock):
                code = self._client.loop_read()
            if code == MQTTErrorCode.MQTT_ERR_SUCCESS and self._client.socket() is not None:
                code = self._flush()
            if code == MQTTErrorCode.MQTT_ERR_SUCCESS and self._client.socket() is not None:
                code = self._client.loop_misc()
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._farewell = self._farewell or paho.error_string(code)
                break
        return "stopped" if self._stopping.is_set() else self._farewell or "closed by the broker"

    def _wait_for_socket(self, sock: Any) -> bool:
        """Wait for the socket or a publication, and return whether the socket has something to read, or has failed."""
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        poll.register(self._wake_r, select.POLLIN)
        ready = poll.poll(0 if pending else IDLE_MS)
        wake_fd = self._wake_r.fileno()
        if any(fd == wake_fd for fd, _ in ready):
            with suppress(BlockingIOError):
                self._wake_r.recv(4096)
        return pending or any(fd != wake_fd and happened != select.POLLOUT for fd, happened in ready)

    def _flush(self) -> MQTTErrorCode:
        """Hand publications to paho one by one, each when the socket has taken the one before."""
        while True:
            code = self._client.loop_write()
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or self._client.want_write() or self._stopping.is_set():
                return code
            if not self._up or self._client.socket() is None:
                return code
            with self._lock:
                now_ns = time.monotonic_ns()
                item, expired = self._outbox.next(now_ns, window_open=len(self._unacked) < self._window)
                self._not_sent(expired, "expired")
                idle = not self._unacked
            if item is None:
                return code
            self._hand_over(item, idle and _unsent_bytes(self._client.socket()) == 0)

    def _hand_over(self, item: Outgoing, idle: bool) -> None:
        properties = None
        now_ns = time.monotonic_ns()
        if item.expires_ns is not None:
            properties = _expiring_in(max(1, -(-(item.expires_ns - now_ns) // 1_000_000_000)))
        if item.size > self._max_packet_bytes:  # queued before we knew this broker's limit
            self.counters["refused_too_large"] += 1
            self._not_sent([item], "too-large")
            return
        info = self._client.publish(item.topic, item.payload, item.qos, item.retain, properties)
        self.counters["sent"] += 1
        self.counters["sent_bytes"] += item.size
        if item.qos:
            with self._lock:
                self._unacked[info.mid] = (item, now_ns, idle)

    def _went_down(self, reason: str) -> None:
        was_up, self._up = self._up, False
        sock = self._client.socket()
        if sock is not None:  # after an error paho still holds it, and the broker would think us there
            sock.close()
        with self._lock:
            self._not_sent(self._outbox.drain_qos0(), "disconnected")
        if not self._stopping.is_set():
            level = logging.DEBUG if reason == self._last_reason and not was_up else logging.WARNING
            log.log(level, "no connection to %s:%d: %s", self._settings.host, self._settings.port, reason)
        self._last_reason = reason
        if was_up:
            self.counters["disconnects"] += 1
            self._inbox.put(Disconnected(reason))
        elif not self._stopping.is_set():
            self.counters["connect_failures"] += 1

    def _not_sent(self, items: Sequence[Outgoing], reason: str) -> None:
        for item in items:
            self.counters[f"not_sent_{reason}"] += 1
            if item.token is not None:
                self._inbox.put(NotSent(item.token, reason))

    def _wake(self) -> None:
        with suppress(OSError):  # full: it wakes anyway; closed: the link has stopped
            self._wake_w.send(b"\0")

    # -- paho's callbacks: they enqueue, nothing else --------------------------------------------------------------

    def _make_client(self, client_id: str, will: Outgoing | None, will_delay_s: int) -> paho.Client:
        settings = self._settings
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        client.connect_timeout = settings.connect_timeout_s
        client.max_inflight_messages_set(QOS1_WINDOW)
        client.max_queued_messages_set(QOS1_WINDOW)
        if settings.username is not None:
            client.username_pw_set(settings.username, _read_password(settings.password_file))
        if settings.tls is not None:
            client.tls_set_context(tls_context(settings.tls))
        if will is not None:
            properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
            properties.WillDelayInterval = will_delay_s
            client.will_set(will.topic, will.payload, will.qos, will.retain, properties)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_socket_open = _tune_socket
        # Registering an external loop keeps paho from writing in the publisher's thread.
        client.on_socket_register_write = lambda *_: None
        return client

    def _on_connect(
        self,
        client: paho.Client,
        _data: Any,
        flags: paho.ConnectFlags,
        code: ReasonCode,
        props: Properties | None,
    ) -> None:
        if code.is_failure:
            raise WireError(f"the broker refused us: {code}")
        told = props.json() if props is not None else {}  # type: ignore[no-untyped-call]
        with self._lock:
            self._max_packet_bytes = min(MAX_PACKET_BYTES, told.get("MaximumPacketSize", MAX_PACKET_BYTES))
            self._window = max(1, min(QOS1_WINDOW, told.get("ReceiveMaximum", QOS1_WINDOW)))
        self._session_present = flags.session_present
        if self._subscriptions:
            wanted = [(s.filter, SubscribeOptions(qos=s.qos, noLocal=s.no_local)) for s in self._subscriptions]
            client.subscribe(wanted)
        else:
            self._came_up()

    def _on_subscribe(
        self, _client: paho.Client, _data: Any, _mid: int, codes: list[ReasonCode], _props: Properties | None
    ) -> None:
        for subscription, code in zip(self._subscriptions, codes, strict=False):
            if code.is_failure:
                raise WireError(f"the broker refused the subscription to {subscription.filter}: {code}")
        self._came_up()

    def _on_unsubscribe(
        self, _client: paho.Client, _data: Any, _mid: int, _codes: list[ReasonCode], _props: Properties | None
    ) -> None:
        self._inbox.put(Unsubscribed())

    def _came_up(self) -> None:
        self._up = True
        self._up_since = time.monotonic()
        self.counters["connects"] += 1
        log.info("connected to %s:%d", self._settings.host, self._settings.port)
        self._inbox.put(Connected(self._session_present, self._max_packet_bytes))

    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: Any,
        flags: paho.DisconnectFlags,
        code: ReasonCode,
        _props: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._farewell = f"the broker said: {code}"

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        event = Received(message.topic, bytes(message.payload), time.monotonic_ns(), message.retain)
        if not self._inbox.put(event, len(message.payload) + len(message.topic)):
            self.counters["refused_inbox_full"] += 1

    def _on_publish(
        self, _client: paho.Client, _data: Any, mid: int, code: ReasonCode, _props: Properties | None
    ) -> None:
        with self._lock:
            sent = self._unacked.pop(mid, None)
        if sent is None:  # QoS 0, or a publication of before a reconnect that was acknowledged twice
            return
        item, sent_ns, idle = sent
        if code.is_failure:
            self.counters["refused_by_broker"] += 1
            log.warning("the broker refused a publication to %s: %s", item.topic, code)
            self._not_sent([item], "refused-by-broker")
            return
        if item.token is not None:
            elapsed_ms = (time.monotonic_ns() - sent_ns) / 1e6
            self._inbox.put(Acknowledged(item.token, item.size, elapsed_ms, idle))


@lru_cache(maxsize=16)
def _expiring_in(seconds: int) -> Properties:
    """Return the properties of such a publication; kept, since paho takes longer to make them than to send."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.MessageExpiryInterval = seconds
    return properties


def _tune_socket(_client: paho.Client, _data: Any, sock: Any) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_LOW_WATER_BYTES)


def _unsent_bytes(sock: Any) -> int:
    """Return the bytes the kernel has not put on the line yet.

    Those under way do not count: a peer may keep its acknowledgement for 40 ms although they have long arrived.
    """
    try:
        held = fcntl.ioctl(sock.fileno(), SIOCOUTQNSD, bytes(4))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTTY, errno.EINVAL):
            raise
        # An emulated kernel (qemu-user, for one) may not know this; the older question counts those under way too.
        held = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(held, sys.byteorder)


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return how to speak TLS by these certificates; raises ``WireError`` for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise WireError(f"cannot use the certificates of the link ({tls}): {error}") from error
    return context


def _read_password(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise WireError(f"cannot read password_file {path}: {error.strerror}") from error
