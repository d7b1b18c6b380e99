"""Tails: which take batches, which must go when memory is bounded; and what the profile measures of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_broker_side.batcher import Key
from edge_broker_side.profiling import profile_edge
from edge_broker_side.tails import Tail, TailCache
from tests.edge_broker_side.peers import picture
from tests.edge_broker_side.stores import EXTENT, fixed_batch_tail, row_mixing_tail, write_store, write_version
from tflite_models.catalog import Catalog, ModelsError, load_catalog
from tflite_models.synthetic import conv_chain

A, B, C = (Key(name, "mid") for name in ("a", "b", "c"))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = write_store(tmp_path_factory.mktemp("store"))
    write_version(root, "fixed", fixed_batch_tail())
    write_version(root, "mixing", row_mixing_tail())
    for key in (A, B, C):
        write_version(root, key.version, conv_chain(1, 4, 4, 3))
    return load_catalog(root)


def test_it_is_found_out_which_tails_take_batches(catalog: Catalog) -> None:
    took = {name: Tail(catalog, Key(name, "mid"), runtime=None).takes_batches for name in ("toy", "fixed", "mixing")}
    assert took == {"toy": True, "fixed": False, "mixing": False}


def test_a_batch_is_answered_frame_by_frame_alike(catalog: Catalog) -> None:
    tail = Tail(catalog, Key("toy", "mid"), runtime=None)
    frames = [(picture(EXTENT, seed),) for seed in range(5)]
    for together, frame in zip(tail.run(frames), frames, strict=True):
        (alone,) = tail.run([frame])
        assert together[0].shape == alone[0].shape
        np.testing.assert_allclose(together[0], alone[0], rtol=1e-4)


def test_the_least_recently_used_tail_goes_first(catalog: Catalog) -> None:
    cache = TailCache(catalog, max_tails=2, max_bytes=10**9)
    for key in (A, B, A, C):
        cache.get(key)
    assert [key in cache for key in (A, B, C)] == [True, False, True]
    assert cache.loads == 3


def test_bytes_bound_the_cache_but_one_tail_always_stays(catalog: Catalog) -> None:
    cache = TailCache(catalog, max_tails=100, max_bytes=1)
    for key in (A, B):
        cache.get(key)
    assert [key in cache for key in (A, B)] == [False, True]


def test_what_cannot_be_loaded_is_an_error_of_the_models(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ModelsError, match="nobody"):
        TailCache(catalog, max_tails=1, max_bytes=1).get(Key("nobody", "mid"))


def test_the_profile_has_every_tail_at_every_batch_it_takes(catalog: Catalog) -> None:
    told: list[tuple[str, int, int]] = []
    profile = profile_edge(catalog, batches=(1, 4), repeats=1, threads=3, progress=lambda *step: told.append(step))
    versions = ("a", "b", "c", "fixed", "mixing", "toy")
    assert {(tail.version, tail.cut) for tail in profile.tails} == {(v, c) for v in versions for c in ("input", "mid")}
    sizes = {tail.version: [size for size, _ in tail.batch_ms] for tail in profile.tails if tail.cut == "mid"}
    assert sizes["toy"] == [1, 4] and sizes["fixed"] == [1]
    assert all(ms > 0 for tail in profile.tails for _, ms in tail.batch_ms)
    assert profile.overhead_ms > 0 and profile.threads == 3
    assert told[0] == ("a/input", 0, 12) and told[-1] == ("done", 12, 12)
