"""Arrays as bytes: unchanged, without pickle, and refused if they differ from the stored ones."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest

from automl.db import blobs
from automl.db.digest import state_hash
from automl.db.records import StoreError

ARRAYS = {
    "dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.array(3, np.int64),
    "text": np.frombuffer(b'{"a": 1}', np.uint8),
    "empty": np.zeros((0, 4), np.float16),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}


class Trap:
    """Unpickling it would call `print`."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


@pytest.mark.parametrize("arrays", [ARRAYS, {}], ids=["some", "none"])
def test_arrays_come_back_unchanged(arrays: dict[str, np.ndarray]) -> None:
    blob = blobs.pack(arrays)
    found = blobs.unpack(blob, blobs.sha256(blob))
    assert sorted(found) == sorted(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def test_numpy_reads_the_same() -> None:
    with np.load(io.BytesIO(blobs.pack(ARRAYS)), allow_pickle=False) as found:
        assert {name: found[name].tolist() for name in found.files} == {
            name: array.tolist() for name, array in ARRAYS.items()
        }


def test_equal_arrays_have_equal_bytes() -> None:
    assert blobs.pack(ARRAYS) == blobs.pack({name: array.copy() for name, array in ARRAYS.items()})


@pytest.mark.parametrize("damage", [lambda blob: blob[:-1], lambda blob: b"", lambda blob: blob + b"\0"])
def test_damage_is_noticed(damage) -> None:
    blob = blobs.pack(ARRAYS)
    damaged = damage(blob)
    with pytest.raises(StoreError) as caught:
        blobs.unpack(damaged, blobs.sha256(blob))
    assert str(caught.value) == (
        f"Stored arrays are damaged: their checksum should be {blobs.sha256(blob)} and is {blobs.sha256(damaged)}. "
        "Restore the database from a backup."
    )


def test_bytes_without_a_checksum_are_not_read() -> None:
    with pytest.raises(StoreError, match="checksum should be None"):
        blobs.unpack(blobs.pack(ARRAYS), None)


def test_arrays_of_objects_are_not_packed() -> None:
    with pytest.raises(ValueError, match="'trap' is an array of objects"):
        blobs.pack({"trap": np.array([Trap()], dtype=object)})


def npz_of_objects() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, trap=np.array([Trap()], dtype=object))
    return buffer.getvalue()


def npy_of_objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object))
    return buffer.getvalue()


def zip_of_pickle() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("trap.npy", pickle.dumps(Trap()))
        file.writestr("trap", pickle.dumps(Trap()))
    return buffer.getvalue()


def plain_npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "hostile",
    [npz_of_objects(), npy_of_objects(), zip_of_pickle(), pickle.dumps(Trap()), plain_npy(), b"", b"PK\x03\x04 no zip"],
    ids=["npz of objects", "npy of objects", "zip of pickles", "pickle", "npy", "nothing", "no zip"],
)
def test_only_plain_arrays_are_read(hostile: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoreError, match=r"Stored arrays are not plain arrays \(.*\); they were not read\.") as caught:
        blobs.unpack(hostile, blobs.sha256(hostile))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_state_hash_sees_names_types_shapes_bytes_and_values() -> None:
    base = {"a": np.zeros(4, np.float32), "b": np.ones(2)}
    hashes = [
        state_hash(base, {"n": 1}),
        state_hash(base, {"n": 2}),
        state_hash(base | {"a": np.zeros(4, np.int32)}, {"n": 1}),
        state_hash(base | {"a": np.zeros((2, 2), np.float32)}, {"n": 1}),
        state_hash(base | {"a": np.full(4, -0.0, np.float32)}, {"n": 1}),
        state_hash({"c": base["a"], "b": base["b"]}, {"n": 1}),
    ]
    assert len(set(hashes)) == len(hashes)


def test_state_hash_does_not_see_order() -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    one = state_hash({"a": matrix, "b": matrix}, {"x": 1, "y": 2})
    other = state_hash({"b": np.asfortranarray(matrix), "a": matrix}, {"y": 2, "x": 1})
    assert one == other
