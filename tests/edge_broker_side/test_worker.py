"""The worker over real brokers: every activation answered exactly once, whatever it is and whatever happens."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from edge_broker_side.broker import Broker
from edge_broker_side.worker import WorkerSettings, run
from tests.edge_broker_side.peers import Peer, Process, picture, running
from tests.edge_broker_side.stores import (
    EXTENT,
    classifier_tail,
    fixed_batch_tail,
    lookup_tail,
    row_mixing_tail,
    write_store,
    write_version,
)
from tflite_models.catalog import load_folder
from tflite_models.runtime import Submodel
from tflite_models.synthetic import conv_chain
from wire.channels import ACTIVATION, RESULT, WORKER_LOAD, WORKER_STATE
from wire.link import LinkSettings
from wire.messages import DeviceState, Outcome, Status
from wire.plan import Plan
from wire.tensor import EncodedTensor, decode, encode

MID = Plan("toy", "mid", "f32")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_store(tmp_path_factory.mktemp("store"))
    write_version(root, "fixed", fixed_batch_tail())
    write_version(root, "mixing", row_mixing_tail())
    write_version(root, "lookup", lookup_tail())
    write_version(root, "classes", classifier_tail(), labels=tuple(f"class-{n}" for n in range(48)))
    write_version(root, "broken", conv_chain(1, 4, 4, 3))
    (root / "broken" / "mid.tail.tflite").write_bytes(b"\x20\0\0\0TFL3" + bytes(100))
    return root


def worker(broker: Broker, site: str, store: Path, name: str = "worker", **more: float) -> WorkerSettings:
    link = LinkSettings(port=broker.port, backoff_min_s=0.05)
    return WorkerSettings(site, name, str(store), link, **({"threads": 1, "load_period_s": 0.2} | more))  # type: ignore[arg-type]


def ready(peer: Peer, workers: int = 1) -> None:
    peer.until(lambda: sum(s.state is DeviceState.READY for s in peer.of(WORKER_STATE)) >= workers)


def scores(result_outputs: tuple[EncodedTensor, ...]) -> np.ndarray:  # type: ignore[type-arg]
    assert len(result_outputs) == 1
    return decode(result_outputs[0], max_elements=1000)


def test_batches_give_what_single_runs_give(any_broker: Broker, site: str, store: Path) -> None:
    tail = Submodel(conv_chain(2, 4, 4, 3), prefer="fast")
    with (
        running(run, worker(any_broker, site, store, max_delay_ms=50)),
        Peer(any_broker, site, RESULT, WORKER_STATE, WORKER_LOAD) as peer,
    ):
        ready(peer)
        for frame in range(1, 41):
            peer.ask(frame, picture(EXTENT, frame), MID)
        peer.until(lambda: len(peer.results()) == 40)
        for frame, result in peer.results().items():
            assert (result.status, result.outcome, result.plan) == (Status.OK, Outcome.EDGE, MID)
            assert (result.session, result.stamp_ns, result.computed_by) == (1, 1000 + frame, "worker")
            assert result.tail_ms > 0 and 1 <= result.batch <= 32
            np.testing.assert_allclose(scores(result.outputs), tail.run(picture(EXTENT, frame))[0], rtol=1e-4)
        assert max(result.batch for result in peer.results().values()) > 1
        peer.until(lambda: sum(load.served for load in peer.of(WORKER_LOAD)) == 40)
        assert any("toy/mid" in load.service_ms and 0 < load.utilisation <= 1 for load in peer.of(WORKER_LOAD))


def test_a_classifier_answers_with_its_best_label(mosquitto: Broker, site: str, store: Path) -> None:
    array = np.zeros((1, 48), np.float32)
    array[0, 17] = 0.75
    with running(run, worker(mosquitto, site, store)), Peer(mosquitto, site, RESULT, WORKER_STATE) as peer:
        ready(peer)
        peer.ask(1, array, Plan("classes", "mid", "f32"))
        peer.until(peer.results)
        best = peer.results()[1].best
        assert best is not None and (best.label, best.score) == (17, 0.75) and not peer.results()[1].outputs


def test_a_head_of_another_model_is_given_no_tail(mosquitto: Broker, site: str, store: Path) -> None:
    """While a version of the same name is rolled out, two models answer to it: their halves must never meet."""
    held = load_folder(store / "toy").version.sha256
    tensors = (encode(picture(EXTENT, 1), MID.codec),)
    with running(run, worker(mosquitto, site, store)), Peer(mosquitto, site, RESULT, WORKER_STATE) as peer:
        ready(peer)
        for frame, model in enumerate((held[:12], "", "0" * 12, held[:11] + ("0" if held[11] != "0" else "1"))):
            peer.ask_encoded(frame, tensors, MID, model=model)
        peer.until(lambda: len(peer.results()) == 4)
        statuses = [peer.results()[frame].status for frame in range(4)]
        assert statuses == [Status.OK, Status.OK, Status.UNKNOWN_PLAN, Status.UNKNOWN_PLAN]
        assert peer.results()[2].reason == "this worker has another model of the name toy"


def test_every_kind_of_refusal_is_one_answer(any_broker: Broker, site: str, store: Path) -> None:
    wrong_shape = EncodedTensor("raw8", (1, 2, 2, 3), "uint8", 0, 0, bytes(12))
    rubbish = EncodedTensor("f32", EXTENT, "float32", 0, 0, b"rubbish")
    bomb = EncodedTensor("f32", (2**31, 2**31), "float32", 0, 0, b"")
    with (
        running(run, worker(any_broker, site, store)),
        Peer(any_broker, site, RESULT, WORKER_STATE) as peer,
    ):
        ready(peer)
        peer.ask(1, picture(EXTENT, 1), Plan("nobody", "mid", "f32"))
        peer.ask(2, picture(EXTENT, 1), Plan("toy", "output", "f32"))
        peer.ask(3, picture(EXTENT, 1), Plan("broken", "mid", "f32"))
        peer.ask(4, picture(EXTENT, 1), MID, budget_ms=0)
        peer.ask(5, picture(EXTENT, 1), MID, budget_ms=-1e30)
        peer.ask_encoded(6, (wrong_shape,), MID)
        peer.ask_encoded(7, (rubbish,), MID)
        peer.ask_encoded(8, (bomb,), MID)
        peer.ask_encoded(9, (), MID)
        peer.ask(10, np.array([[99]], np.int32), Plan("lookup", "mid", "i8"))
        peer.ask(11, picture(EXTENT, 1), MID)
        peer.until(lambda: len(peer.results()) == 11)
        statuses = [peer.results()[frame].status for frame in range(1, 12)]
        assert statuses == [
            *[Status.UNKNOWN_PLAN] * 3,
            *[Status.EXPIRED] * 2,
            *[Status.BAD_TENSOR] * 4,
            Status.FAILED,
            Status.OK,
        ]
        assert all(peer.results()[frame].reason for frame in range(1, 11))


def test_a_full_queue_says_busy_at_once_and_keeps_its_promises(mosquitto: Broker, site: str, store: Path) -> None:
    settings = worker(mosquitto, site, store, max_jobs=2, max_delay_ms=1000)
    with running(run, settings), Peer(mosquitto, site, RESULT, WORKER_STATE) as peer:
        ready(peer)
        for frame in range(1, 7):
            peer.ask(frame, picture(EXTENT, frame), MID)
        peer.until(lambda: len(peer.results()) == 6)
        order = [result.frame for result in peer.of(RESULT)]
        assert {peer.results()[frame].status for frame in (3, 4, 5, 6)} == {Status.BUSY}
        assert {peer.results()[frame].status for frame in (1, 2)} == {Status.OK}
        assert set(order[:4]) == {3, 4, 5, 6}


def test_a_frame_expires_in_the_queue(mosquitto: Broker, site: str, store: Path) -> None:
    with (
        running(run, worker(mosquitto, site, store, max_delay_ms=5000)),
        Peer(mosquitto, site, RESULT, WORKER_STATE) as peer,
    ):
        ready(peer)
        peer.ask(1, picture(EXTENT, 1), MID, budget_ms=100)
        peer.until(peer.results)
        assert peer.results()[1].status is Status.EXPIRED


@pytest.mark.parametrize("version", ["fixed", "mixing"])
def test_tails_that_take_no_batches_run_one_by_one(mosquitto: Broker, site: str, store: Path, version: str) -> None:
    with (
        running(run, worker(mosquitto, site, store, max_delay_ms=50)),
        Peer(mosquitto, site, RESULT, WORKER_STATE) as peer,
    ):
        ready(peer)
        for frame in range(1, 6):
            peer.ask(frame, picture(EXTENT, frame), Plan(version, "mid", "f32"))
        peer.until(lambda: len(peer.results()) == 5)
        for frame, result in peer.results().items():
            assert (result.status, result.batch) == (Status.OK, 1)
            np.testing.assert_array_equal(scores(result.outputs).ravel(), picture(EXTENT, frame).ravel())


def test_poison_costs_a_counter(any_broker: Broker, site: str, store: Path) -> None:
    rng = np.random.default_rng(7)
    with (
        running(run, worker(any_broker, site, store)),
        Peer(any_broker, site, RESULT, WORKER_STATE, WORKER_LOAD) as peer,
    ):
        ready(peer)
        for size in (0, 1, 10, 1000, 500_000):
            peer.raw(ACTIVATION, rng.bytes(size))
        peer.raw(ACTIVATION, b"\x91" * 50_000)
        peer.ask_encoded(2, (), Plan("v" * 1_200_000, "mid", "f32"))  # longer than any result may be
        assert peer.link.publish(f"splitfleet/v1/{site}/NOT-a-name/activation", b"", qos=0)
        peer.ask(1, picture(EXTENT, 1), MID)
        peer.until(peer.results)
        assert peer.results()[1].status is Status.OK
        peer.until(lambda: any(load.counters.get("refused_payload") == 8 for load in peer.of(WORKER_LOAD)))


def test_a_retained_activation_is_nobodys_job(mosquitto: Broker, site: str, store: Path) -> None:
    with Peer(mosquitto, site, RESULT, WORKER_STATE, WORKER_LOAD) as peer:
        peer.raw(ACTIVATION, b"left behind", retain=True)
        with running(run, worker(mosquitto, site, store)):
            ready(peer)
            peer.ask(1, picture(EXTENT, 1), MID)
            peer.until(peer.results)
            peer.until(lambda: peer.of(WORKER_LOAD))
            assert "refused_payload" not in peer.of(WORKER_LOAD)[-1].counters
        peer.raw(ACTIVATION, b"", retain=True)


def test_two_workers_share_and_one_may_leave(any_broker: Broker, site: str, store: Path) -> None:
    with (
        Peer(any_broker, site, RESULT, WORKER_STATE) as peer,
        running(run, worker(any_broker, site, store, "one")),
    ):
        with running(run, worker(any_broker, site, store, "two")):
            ready(peer, 2)
            for frame in range(1, 61):
                peer.ask(frame, picture(EXTENT, frame), MID)
            peer.until(lambda: len(peer.results()) == 60)
            assert {result.computed_by for result in peer.results().values()} == {"one", "two"}
        peer.until(lambda: any(s.state is DeviceState.STOPPED for s in peer.of(WORKER_STATE)))
        for frame in range(61, 81):
            peer.ask(frame, picture(EXTENT, frame), MID)
        peer.until(lambda: len(peer.results()) == 80)
        assert {peer.results()[frame].computed_by for frame in range(61, 81)} == {"one"}


def settings_file(folder: Path, broker: Broker, site: str, store: Path, **more: float) -> Path:
    path = folder / "worker.toml"
    lines = [f'site = "{site}"', 'name = "worker"', f'models = "{store}"', "threads = 1"]
    lines += [f"{key} = {value}" for key, value in more.items()]
    path.write_text("\n".join([*lines, "[link]", f"port = {broker.port}", ""]))
    return path


def test_sigterm_drains(any_broker: Broker, site: str, store: Path, tmp_path: Path) -> None:
    toml = settings_file(tmp_path, any_broker, site, store, max_delay_ms=15_000, max_batch=8)
    with (
        Peer(any_broker, site, RESULT, WORKER_STATE) as peer,
        Process("worker", toml, tmp_path / "worker.log") as process,
    ):
        ready(peer)
        for frame in range(1, 8):
            peer.ask(frame, picture(EXTENT, frame), MID)
        peer.ask(8, picture(EXTENT, 1), Plan("nobody", "mid", "f32"))
        peer.until(peer.results)  # the refusal came behind the others: they have arrived
        assert list(peer.results()) == [8]
        assert process.end() == 0
        peer.until(lambda: len(peer.results()) == 8)
        assert all(peer.results()[frame].status is Status.OK for frame in range(1, 8))
        peer.until(lambda: peer.of(WORKER_STATE)[-1].state is DeviceState.STOPPED)


def test_a_killed_worker_is_told_by_its_will(any_broker: Broker, site: str, store: Path, tmp_path: Path) -> None:
    toml = settings_file(tmp_path, any_broker, site, store)
    with (
        Peer(any_broker, site, WORKER_STATE) as peer,
        Process("worker", toml, tmp_path / "worker.log") as process,
    ):
        ready(peer)
        process.end(signal.SIGKILL)
        peer.until(lambda: peer.of(WORKER_STATE)[-1].state is DeviceState.LOST)
        assert len({state.session for state in peer.of(WORKER_STATE)}) == 1


def test_bad_settings_are_refused_by_name(tmp_path: Path) -> None:
    toml = tmp_path / "worker.toml"
    toml.write_text('site = "s"\nname = "w"\nmodels = "m"\nmax_batches = 3\n')
    with Process("worker", toml, tmp_path / "log") as process:
        assert process._process.wait(20) == 2
    assert "max_batches" in process.log.read_text()
