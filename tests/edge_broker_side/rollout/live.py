"""A roll-out server in a thread, on a real broker, with the devices a test wants beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_broker_side.identity.signing import Signer, public_key_path
from edge_broker_side.rollout.bundles import Bundle, make_bundle
from edge_broker_side.rollout.campaign import Fate, Status, Terms
from edge_broker_side.rollout.server import RolloutServer, RolloutSettings
from edge_broker_side.rollout.store import Rollout, RolloutStore
from tests.device_client.edge import link_to
from tests.device_client.stores import classifier, picture, write_version
from tests.wire.examples import EXAMPLES
from tflite_models.catalog import load_folder
from wire import channels, codec
from wire.channels import Channel
from wire.inbox import Inbox
from wire.link import Received, Subscription
from wire.messages import (
    CachedVersion,
    Capabilities,
    Chunk,
    DeviceState,
    Fetch,
    State,
    Update,
    UpdateStage,
    UpdateState,
)
from wire.mqtt import Link

PATIENCE_S = 30.0
EVERYBODY = Terms(stages=(1.0,), limit_s=600.0, trial_frames=3)


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll for something that no event tells."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not seen in {PATIENCE_S} s: {what}"
        time.sleep(0.02)


@dataclass
class Live:
    """The server's side."""

    settings: RolloutSettings
    site_folder: Path
    store: RolloutStore
    server: RolloutServer

    @property
    def key(self) -> Path:
        return self.settings.key

    def publish(self, folder: Path, seed: int, name: str = "tiny") -> Bundle:
        """Make a version with other weights and its bundle."""
        write_version(folder, name, classifier(4, seed=seed))
        samples = np.stack([picture(number) for number in range(2)])
        out = self.settings.bundle("").parent
        path = make_bundle(load_folder(folder / name), [samples], out, Signer.of_site(self.site_folder), 0)
        return Bundle(path, self.key.read_bytes())

    def begin(self, bundle: Bundle, terms: Terms = EVERYBODY, where: str = "") -> Rollout:
        return self.store.begin(bundle.manifest, where, terms, time.time())

    def status(self, rollout: Rollout) -> Status:
        return self.store.get(rollout.id).status

    def wait_status(self, rollout: Rollout, status: Status) -> Rollout:
        until(lambda: self.status(rollout) is status, f"roll-out {status}, not {self.store.get(rollout.id)}")
        return self.store.get(rollout.id)

    def wait_fates(self, rollout: Rollout, **fates: Fate) -> None:
        """Wait until devices (dashes as underscores) have met these fates."""
        wanted = {name.replace("_", "-"): met for name, met in fates.items()}
        until(lambda: wanted.items() <= self.store.fates(rollout).items(), f"{wanted}: {self.store.fates(rollout)}")


@contextmanager
def serving(settings: RolloutSettings) -> Iterator[RolloutServer]:
    """Run a server in a thread."""
    stop, made = threading.Event(), threading.Event()
    box: list[RolloutServer] = []

    def run() -> None:
        server = RolloutServer(settings)  # in this thread: its database belongs to it
        box.append(server)
        made.set()
        try:
            server.serve(stop)
        finally:
            server.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert made.wait(PATIENCE_S)
    yield box[0]
    stop.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@contextmanager
def rolling_out(folder: Path, site: str, port: int, **changes: object) -> Iterator[Live]:
    """Make a site with its signing key and run its server."""
    Signer.of_site(folder)
    settings = RolloutSettings(site, folder / "rollouts", public_key_path(folder), link=link_to(port))
    settings = replace(settings, **changes)  # type: ignore[arg-type]
    with serving(settings) as server:
        store = RolloutStore(settings.store)
        yield Live(settings, folder, store, server)
        store.close()


class Puppet:
    """A device that says and asks only what a test makes it, and keeps what it hears."""

    def __init__(self, site: str, name: str, port: int, *, online: bool = True) -> None:
        self.name = name
        self.updates: list[Update | None] = []
        self.chunks: list[Chunk] = []
        self._site = site
        self._inbox = Inbox()
        heard = [Subscription(channels.topic(site, name, c), c.qos) for c in (channels.UPDATE, channels.CHUNK)]
        self._link = Link(link_to(port), f"puppet-{site}-{name}", self._inbox, subscriptions=heard, clean_start=True)
        self._link.start()
        self.be(online=online)

    def __enter__(self) -> Puppet:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def be(self, *, online: bool = True, tags: tuple[str, ...] = (), holds: tuple[CachedVersion, ...] = ()) -> None:
        """Tell state and capabilities."""
        told: Capabilities = replace(EXAMPLES["capabilities"], session=1, tags=tags, versions=holds)
        self.say(channels.CAPABILITIES, told)
        self.say(channels.STATE, State(DeviceState.READY if online else DeviceState.LOST, 1))

    def say(self, channel: Channel, message: object) -> None:
        payload = codec.encode(channel, message)
        until(lambda: self._link.connected, "a connection")
        where = channels.topic(self._site, self.name, channel)
        assert self._link.publish(where, payload, qos=channel.qos, retain=channel.retained) is not None

    def is_at(self, update: Update, stage: UpdateStage, done: int = 0, size: int = 0, reason: str = "") -> None:
        self.say(channels.UPDATE_STATE, UpdateState(1, update.rev, update.bundle, stage, done, size, reason))

    def fetch(self, bundle: str, offset: int, length: int) -> None:
        self.say(channels.FETCH, Fetch(bundle, offset, length))

    def heard(self) -> Puppet:
        """Hear what has come, and return this device."""
        self.hear()
        return self

    def hear(self) -> None:
        for event in self._inbox.take(0.05):
            if isinstance(event, Received):
                channel = channels.parse_topic(event.topic).channel
                message = codec.decode(channel, event.payload) if event.payload else None
                if isinstance(message, Chunk):
                    self.chunks.append(message)
                else:
                    self.updates.append(message)

    def wait_update(self) -> Update:
        """Wait for the next update."""

        until(lambda: self.heard().updates[-1:] not in ([], [None]), f"an update of {self.name}")
        update = self.updates[-1]
        assert update is not None
        return update
