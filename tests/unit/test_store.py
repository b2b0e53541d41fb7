"""Snapshots: what comes back is what was saved, or nothing does."""

import errno
import os
import resource
import signal

import numpy as np
import pytest
import torch

from algorithms.protocol import Snapshot
from node.errors import StorageError
from node.store import Origin, Store

ORIGIN = Origin(run="r1", peer="n0", layout="sha256:aa")


def snapshot(mark: int, size: int = 40) -> Snapshot:
    vectors = {"algorithm.x": torch.arange(size, dtype=torch.float32) + mark, "trainer.m": torch.full((3,), 0.5)}
    return Snapshot(vectors, {"made": mark, "units": 0.1 * mark, "draws.clock": '{"state": "é"}'})


def equal(one: Snapshot, other: Snapshot) -> bool:
    return (
        one.numbers == other.numbers
        and one.vectors.keys() == other.vectors.keys()
        and all(torch.equal(one.vectors[name], other.vectors[name]) for name in one.vectors)
        and all(one.vectors[name].dtype == other.vectors[name].dtype for name in one.vectors)
    )


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "state", ORIGIN) as store:
        yield store


def files(tmp_path):
    return sorted((tmp_path / "state").glob("snapshot-*"))


def test_nothing_ever_saved_is_none(store):
    assert store.empty
    assert store.load() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_round_trip_keeps_every_bit(store, dtype):
    vector = torch.tensor([1, 2, -3], dtype=dtype)
    saved = Snapshot(
        {"v": vector, "scalar": torch.tensor(2.5), "none": torch.zeros(0)},
        {"third": 1 / 3, "whole": 2**60, "endless": float("inf"), "text": "a\n"},
    )
    store.save(saved)
    assert not store.empty
    assert equal(store.load(), saved)


def test_numbers_keep_their_type(store):
    store.save(Snapshot({}, {"count": 1, "real": 1.0}))
    loaded = store.load().numbers
    assert (type(loaded["count"]), type(loaded["real"])) == (int, float)


def test_two_generations_stay(store, tmp_path):
    for mark in range(5):
        store.save(snapshot(mark))
    assert len(files(tmp_path)) == 2
    files(tmp_path)[-1].unlink()
    assert equal(store.load(), snapshot(3))


def test_keep_is_the_number_of_generations(tmp_path):
    with Store(tmp_path / "state", ORIGIN, keep=4) as store:
        for mark in range(9):
            store.save(snapshot(mark))
    assert len(files(tmp_path)) == 4


def damages(content: bytes):
    """A hundred flips, a hundred truncations, and worse."""
    offsets = np.linspace(0, len(content) - 1, 100).astype(int)
    for offset in offsets:
        flipped = bytearray(content)
        flipped[offset] ^= 1 << (int(offset) % 8)
        yield bytes(flipped)
        yield content[:offset]
    yield from (b"", bytes(len(content)), content + b"\0", b"\xff" * 200, content[8:])


def test_no_damage_is_ever_loaded_and_the_older_generation_is(store, tmp_path):
    store.save(snapshot(1))
    store.save(snapshot(2))
    newest = files(tmp_path)[-1]
    for damaged in damages(newest.read_bytes()):
        newest.write_bytes(damaged)
        assert equal(store.load(), snapshot(1))


def test_none_good_is_an_error_and_stays_one(store, tmp_path):
    store.save(snapshot(1))
    files(tmp_path)[0].write_bytes(b"")
    for _ in range(2):
        with pytest.raises(StorageError, match="no snapshot"):
            store.load()
    assert not store.empty


def test_damaged_generation_does_not_crowd_out_a_good_one(store, tmp_path):
    store.save(snapshot(1))
    store.save(snapshot(2))
    files(tmp_path)[-1].write_bytes(b"junk")
    store.load()
    store.save(snapshot(3))
    files(tmp_path)[-1].write_bytes(b"junk")
    assert equal(store.load(), snapshot(1))


@pytest.mark.parametrize("other", [Origin("r2", "n0", "sha256:aa"), Origin("r1", "n1", "sha256:aa")])
def test_anothers_snapshot_is_refused(store, tmp_path, other):
    with Store(tmp_path / "elsewhere", other) as elsewhere:
        elsewhere.save(snapshot(1))
    (tmp_path / "elsewhere" / "snapshot-0000000001.safetensors").rename(
        tmp_path / "state" / "snapshot-0000000001.safetensors"
    )
    with pytest.raises(StorageError, match="name another state folder"):
        store.load()


def test_same_vectors_under_another_layout_are_refused(tmp_path):
    with Store(tmp_path / "state", ORIGIN) as store:
        store.save(snapshot(1))
    other = Origin(ORIGIN.run, ORIGIN.peer, "sha256:bb")
    with Store(tmp_path / "state", other) as store, pytest.raises(StorageError, match="layout"):
        store.load()


def test_folder_is_open_once(store, tmp_path):
    with pytest.raises(StorageError, match="in use"):
        Store(tmp_path / "state", ORIGIN)


def test_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        Store(tmp_path / "file" / "state", ORIGIN)


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_failing_disk_leaves_what_was_there(store, tmp_path, monkeypatch, step):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    store.save(snapshot(1))
    with monkeypatch.context() as patch:
        patch.setattr(os if step == "fsync" else type(tmp_path), step, fail)
        with pytest.raises(StorageError, match="Input/output error"):
            store.save(snapshot(2))
    assert equal(store.load(), snapshot(1))
    store.save(snapshot(3))
    assert equal(store.load(), snapshot(3))
    assert [path.name for path in files(tmp_path)] == [f"snapshot-{n:010d}.safetensors" for n in (1, 2)]


def test_full_disk_leaves_what_was_there(store, tmp_path):
    store.save(snapshot(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.raises(StorageError, match="can't be written"):
            store.save(snapshot(2, size=100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert equal(store.load(), snapshot(1))
    left = {path.name for path in (tmp_path / "state").iterdir()}
    assert left == {"lock", "snapshot-0000000001.safetensors"}


def test_save_cut_short_is_swept(store, tmp_path):
    store.save(snapshot(1))
    (tmp_path / "state" / "partial.safetensors").write_bytes(b"half")
    assert equal(store.load(), snapshot(1))
    assert not (tmp_path / "state" / "partial.safetensors").exists()
