"""What a pool and a worker tell each other, and the pipes between them."""

import os
import select
import threading

import pytest

from automl.child_trainers.workers.messages import (
    MAX_SENTENCE,
    Delivered,
    GpuLost,
    MessageError,
    Ready,
    SearchFault,
    Wake,
    WorkerOrder,
    decode,
    encode,
)
from automl.child_trainers.workers.transport import ChannelClosedError, PipeChannel

ORDER = WorkerOrder(
    store="automl.db",
    search_id=3,
    settings={"space": {"name": "convnet"}, "text": "é" * 100_000},
    epoch=2,
    keep=5,
    threads=1,
    early_stop="none",
    recycle_after=50,
    recycle_growth=2**30,
    gpu_memory=4096,
    artefacts={"kind": "folder", "folder": "/logs"},
)


@pytest.mark.parametrize(
    "message", [ORDER, Wake(), Ready(), Delivered(), SearchFault("it is broken"), GpuLost("it is gone")]
)
def test_a_message_goes_through_json(message):
    line = encode(message)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode(line) == message


def test_the_order_of_one_worker():
    order = ORDER.to(1, 3, "gpu 0")
    assert (order.worker, order.slot, order.device, order.store) == ("2.1.3", 1, "gpu 0", "automl.db")
    assert order.num_gpus == 0 and ORDER.to(1, 3, "gpu 0", 2).num_gpus == 2


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"message": "ready/2"}', "The message 'ready/2' is unknown; worker and pool must have the same version"),
        (b'{"message": "wake/1", "loud": true}', "The message 'wake/1' has wrong fields"),
        (b'{"message": "search-fault/1"}', "The message 'search-fault/1' has wrong fields"),
        (b"w", "b'w' is not a message of a worker or a pool"),
        (b"[]", "is not a message of a worker or a pool"),
        (b"{}", "is not a message of a worker or a pool"),
    ],
)
def test_what_is_no_message(line, error):
    with pytest.raises(MessageError) as caught:
        decode(line)
    assert error in str(caught.value)


@pytest.mark.parametrize("text", ["x" * 10_000, "…" * 10_000, "two\nlines", "\U0001f600" * 5_000])
@pytest.mark.parametrize("kind", [SearchFault, GpuLost])
def test_a_sentence_is_one_line_and_cut_to_one_piece_of_a_pipe(kind, text):
    message = kind.of(ValueError(text))
    assert len(encode(message)) <= MAX_SENTENCE + 100 <= select.PIPE_BUF
    assert len(message.sentence) >= min(len(text), 200) and "\n" not in message.sentence


@pytest.fixture
def ends():
    """Both ends of a connection by pipes."""
    there, back = os.pipe(), os.pipe()
    one, other = PipeChannel(back[0], there[1]), PipeChannel(there[0], back[1])
    yield one, other
    one.close()
    other.close()


def test_messages_arrive_whole_and_in_order(ends):
    one, other = ends
    sender = threading.Thread(target=lambda: [one.send(message) for message in (ORDER, Wake(), Wake())])
    sender.start()  # the order is larger than a pipe
    assert [other.receive(), other.receive(), other.receive()] == [ORDER, Wake(), Wake()]
    sender.join()
    other.send(Ready())
    assert one.receive() == Ready()


def test_nothing_comes(ends):
    one, _ = ends
    assert one.receive(timeout=0.0) is None
    assert one.receive(timeout=0.01) is None


def test_the_other_end_is_closed(ends):
    one, other = ends
    other.send(Delivered())
    other.close()
    other.close()
    assert one.receive() == Delivered()  # what it sent before is not lost
    assert one.fileno() >= 0
    for _ in range(2):
        with pytest.raises(ChannelClosedError):
            one.receive(timeout=0.0)
    assert one.fileno() == -1  # else whoever waits for it would never wait
    one.send(Wake())  # is dropped
    one.close()
    with pytest.raises(ChannelClosedError):
        one.receive()


def test_an_end_that_is_not_read_keeps_nobody_waiting(ends):
    one, other = ends
    one.drop_when_full()
    for _ in range(10_000):
        one.send(Wake())
    received = 0
    while other.receive(timeout=0.0) is not None:
        received += 1
    assert 100 < received < 10_000
