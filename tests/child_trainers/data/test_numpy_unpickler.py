import contextlib
import os
import pickle
import tracemalloc

import numpy as np
import pytest

from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.data.numpy_unpickler import unpickle_arrays


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class State(Call):
    """Pickles as a call whose result is then given a state."""

    def __init__(self, function, arguments, state):
        self.call = function, arguments, state


def reconstruct(dtype, shape, content):
    """Pickles as an array with this state, right or wrong."""
    function = np.zeros(1).__reduce__()[0]
    return State(function, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, content))


def message_of(content):
    with pytest.raises(DataError) as raised:
        unpickle_arrays(content, "batch")
    return str(raised.value)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("code", ["?", "i1", "u1", "<i2", ">i4", "<u8", "<f2", ">f4", "<f8"])
def test_arrays_of_numbers_come_back_equal(code, protocol):
    for array in (
        np.arange(24).reshape(2, 3, 4).astype(code),
        np.asfortranarray(np.arange(6).reshape(2, 3).astype(code)),
        np.zeros((0, 3), code),
        np.array(1, code),
    ):
        read = unpickle_arrays(pickle.dumps({b"data": array}, protocol), "batch")[b"data"]
        np.testing.assert_array_equal(read, array, strict=True)


def test_python_2_strings_stay_bytes():
    """Written by hand as Python 2 and numpy 1 write it: the form of the official CIFAR-10 files."""
    content = (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07"
        b"(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\x01\x02\xfftbu."
    )
    batch = unpickle_arrays(content, "batch")
    assert batch[b"labels"] == [6, 9]
    np.testing.assert_array_equal(batch[b"data"], np.array([[1, 2, 255]], np.uint8), strict=True)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_hostile_pickle_runs_nothing(tmp_path, protocol):
    marker = tmp_path / "marker"
    content = pickle.dumps({"data": Call(os.system, f"touch {marker}")}, protocol)
    named = f"{os.system.__module__}.system"
    assert message_of(content) == f"batch is not a pickle of numpy arrays: it refers to {named}, which was not loaded"
    assert not marker.exists()
    pickle.loads(content)  # noqa: S301 - proves that the pickle is hostile
    assert marker.exists()


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (Call(eval, "1/0"), "builtins.eval"),
        (Call(getattr, np.ndarray, "tofile"), "builtins.getattr"),
        (Call(np.load, "x"), "numpy.load"),
        (Call(np.ndarray.tofile, np.zeros(1), "x"), "builtins.getattr"),
        (Call(np.fromfile, "x"), "fromfile"),
        (np.float64(1), "scalar"),
        (np.matrix, "numpy.matrix"),
        (DataError("x"), "automl.child_trainers.data.dataset.DataError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_everything_but_arrays_is_refused(payload, named):
    assert f"{named}, which was not loaded" in message_of(pickle.dumps({b"data": payload}, protocol=4))


def test_dotted_names_do_not_reach_into_admitted_classes():
    content = b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."
    assert "it refers to numpy.ndarray.tofile, which was not loaded" in message_of(content)


def test_object_arrays_are_refused():
    content = pickle.dumps({b"data": np.array([{}, []], object)}, protocol=4)
    assert message_of(content) == (
        "batch is not a pickle of numpy arrays: it holds an array of type 'O8', which is not a type of numbers"
    )


def test_object_arrays_within_an_object_array_run_nothing(tmp_path):
    marker = tmp_path / "marker"
    array = np.array([Call(os.system, f"touch {marker}"), 1], object)
    message_of(pickle.dumps({b"data": array}, protocol=4))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (np.zeros(2, [("a", "u1"), ("b", "f4")]), "type 'V5', which is not a type of numbers"),
        (np.zeros(2, "U3"), "type 'U3', which is not a type of numbers"),
        (np.zeros(2, "M8[s]"), "type 'M8', which is not a type of numbers"),
        # Fields that claim to be objects inside plain bytes: the real numpy.dtype would follow them as pointers.
        (
            reconstruct(
                State(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),
                (1,),
                b"A" * 8,
            ),
            "type 'V8', which is not a type of numbers",
        ),
        (reconstruct(np.dtype("u1"), (5,), b"1234"), "an array of shape (5,) in 4 bytes"),
        (reconstruct(np.dtype("u1"), (2**32, 2**32), b""), "an array of shape (4294967296, 4294967296) in 0 bytes"),
        (reconstruct(np.dtype("u1"), (-1, -4), b"1234"), "can only specify one unknown dimension"),
        (reconstruct(np.dtype("u1"), "ab", b"1234"), "can't multiply"),
        (reconstruct("u1", (4,), b"1234"), "'str' object has no attribute 'to_numpy'"),
        (Call(np.ndarray, (10**15,)), "_Array() takes no arguments"),
    ],
    ids=range(10),
)
def test_made_up_arrays_are_refused(payload, reason):
    assert reason in message_of(pickle.dumps({b"data": payload}, protocol=4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "batch is not a pickle of numpy arrays: EOFError"),
        (b"GIF89a", "batch is not a pickle of numpy arrays: "),
        (b"\x80\x04.", "batch is not a pickle of numpy arrays: "),
        (pickle.dumps({b"data": np.zeros(9)}, 4)[:-20], "batch is not a pickle of numpy arrays: "),
        (pickle.dumps([1, 2]), "batch is not a pickle of numpy arrays: expected a dict, found list"),
        (b"\x80\x04B\xff\xff\xff\x7fabc.", "batch is not a pickle of numpy arrays: "),
    ],
    ids=["empty", "not a pickle", "no value", "truncated", "list", "claims 2 GiB"],
)
def test_damaged_pickles_are_refused(content, message):
    assert message_of(content).startswith(message)


def test_a_large_memo_index_reserves_no_memory():
    """LONG_BINPUT at index 2^31 - 1, for which pickle in C reserves 32 GiB."""
    content = b"\x80\x02}r\xff\xff\xff\x7f."
    tracemalloc.start()
    try:
        assert unpickle_arrays(content, "batch") == {}
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_every_truncation_is_refused():
    content = pickle.dumps({b"data": np.zeros((2, 3), np.uint8), b"labels": [1, 2]}, protocol=4)
    for length in range(len(content)):
        message_of(content[:length])


def test_any_single_wrong_byte_is_refused_or_harmless(tmp_path, monkeypatch):
    """Nothing but a DataError may come out, whichever byte is hit; no file may appear."""
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({b"data": np.zeros((2, 3), np.uint8), b"labels": [1, 2]}, protocol=2)
    # Opcodes of the pickle machine and small counts.
    for position in range(len(content)):
        for byte in b"\x00\x01.0(RbcioJKNUX]}\x81\x85\x89":
            changed = content[:position] + bytes([byte]) + content[position + 1 :]
            with contextlib.suppress(DataError):
                unpickle_arrays(changed, "batch")
    assert list(tmp_path.iterdir()) == []
