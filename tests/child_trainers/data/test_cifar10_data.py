"""CIFAR-10 in small: three images a file, in folders, archives and on a server made for the occasion."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import http.server
import io
import os
import pickle
import re
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from waiting import SECONDS

from automl.child_trainers.data import cifar10
from automl.child_trainers.data.cifar10 import BINARY_LAYOUT, PYTHON_LAYOUT, Archive, load_cifar10
from automl.child_trainers.data.dataset import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (18, 3072)).astype(np.uint8)
LABELS = [int(label) for label in np.arange(18) % 10]
FILES = {name: slice(3 * i, 3 * i + 3) for i, name in enumerate(PYTHON_LAYOUT.files)}


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def with_checksums(layout, contents):
    """The layout, expecting these contents instead of the official ones."""
    return dataclasses.replace(
        layout,
        train={name: sha256(contents[name]) for name in layout.train},
        test={name: sha256(contents[name]) for name in layout.test},
    )


PYTHON_CONTENTS = {
    name: pickle.dumps({b"data": PIXELS[part], b"labels": LABELS[part], b"batch_label": b"tiny"}, protocol=4)
    for name, part in FILES.items()
}
BINARY_CONTENTS = {
    f"{name}.bin": b"".join(
        bytes([label]) + row.tobytes() for label, row in zip(LABELS[part], PIXELS[part], strict=True)
    )
    for name, part in FILES.items()
}
PYTHON = with_checksums(PYTHON_LAYOUT, PYTHON_CONTENTS)
BINARY = with_checksums(BINARY_LAYOUT, BINARY_CONTENTS)
LAYOUTS = (PYTHON, BINARY)


def write(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def load(data_dir, **settings):
    return load_cifar10(data_dir, **{"download": False, "num_validation": 5, "layouts": LAYOUTS} | settings)


def message_of(data_dir, **settings):
    with pytest.raises(DataError) as raised:
        load(data_dir, **settings)
    return str(raised.value)


# --- Reading what is there ---


@pytest.mark.parametrize("inside", [False, True], ids=["parent", "folder itself"])
@pytest.mark.parametrize(
    ("folder", "contents"),
    [("cifar-10-batches-py", PYTHON_CONTENTS), ("cifar-10-batches-bin", BINARY_CONTENTS), (".", BINARY_CONTENTS)],
)
def test_both_layouts_give_the_same_data(tmp_path, folder, contents, inside):
    written = write(tmp_path / folder, contents)
    data = load(written if inside else tmp_path)
    assert (data.name, data.num_classes, data.input_shape) == ("cifar10", 10, (32, 32, 3))
    assert (len(data.x_train), len(data.x_validation), len(data.x_test)) == (10, 5, 3)
    assert data.y_test.tolist() == LABELS[15:]
    write(tmp_path / "other" / PYTHON.folder, PYTHON_CONTENTS)
    assert data.fingerprint == load(tmp_path / "other").fingerprint


def test_pixels_are_red_green_blue_in_rows(tmp_path):
    write(tmp_path, BINARY_CONTENTS)
    x_test = load(tmp_path).x_test
    for row, column, channel in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (31, 31, 2), (7, 30, 1)):
        np.testing.assert_array_equal(x_test[:, row, column, channel], PIXELS[15:, 1024 * channel + 32 * row + column])
    assert x_test.flags.c_contiguous


def test_the_split_keeps_labels_and_depends_on_the_seed_alone(tmp_path):
    write(tmp_path, BINARY_CONTENTS)
    data = load(tmp_path)
    label_of = {
        row.reshape(3, 32, 32).transpose(1, 2, 0).tobytes(): label for row, label in zip(PIXELS, LABELS, strict=True)
    }
    for x, y in ((data.x_train, data.y_train), (data.x_validation, data.y_validation)):
        assert [label_of.pop(image.tobytes()) for image in x] == y.tolist()
    assert len(label_of) == 3
    assert load(tmp_path).fingerprint == data.fingerprint != load(tmp_path, seed=1).fingerprint


def test_the_more_complete_layout_is_read(tmp_path):
    write(tmp_path / PYTHON.folder, {"data_batch_1": PYTHON_CONTENTS["data_batch_1"]})
    write(tmp_path / BINARY.folder, BINARY_CONTENTS)
    assert len(load(tmp_path).x_test) == 3


def test_a_missing_file_is_named(tmp_path):
    folder = write(tmp_path / PYTHON.folder, PYTHON_CONTENTS)
    (folder / "data_batch_3").unlink()
    # Also where a download is allowed: the user's own folder is not written into.
    assert message_of(tmp_path, download=True) == (
        f"{folder / 'data_batch_3'} is missing, while other files of CIFAR-10 are there; add it, or remove those to "
        "have all of them downloaded."
    )


@pytest.mark.parametrize(
    "change",
    [lambda content: content[:-1], lambda content: b"", lambda content: content[:2000] + b"\0" + content[2001:]],
    ids=["truncated", "empty", "one byte"],
)
@pytest.mark.parametrize(("layout", "contents"), [(PYTHON, PYTHON_CONTENTS), (BINARY, BINARY_CONTENTS)])
def test_a_damaged_file_is_named_with_both_checksums(tmp_path, layout, contents, change):
    folder = write(tmp_path / layout.folder, contents)
    name = next(iter(layout.test))
    content = change(contents[name])
    (folder / name).write_bytes(content)
    assert message_of(tmp_path) == (
        f"{folder / name} is damaged or not the official file: expected sha256 {sha256(contents[name])}, "
        f"found {sha256(content)} in {len(content)} bytes; replace it, or remove all files of CIFAR-10 there to have "
        "them downloaded."
    )


def test_no_more_than_the_limit_is_read_of_a_file(tmp_path, monkeypatch):
    write(tmp_path, BINARY_CONTENTS)
    monkeypatch.setattr(cifar10, "MAX_FILE_BYTES", 100)
    assert "in 100 bytes;" in message_of(tmp_path)


def test_a_hostile_pickle_is_not_even_parsed(tmp_path):
    marker = tmp_path / "marker"
    hostile = {**PYTHON_CONTENTS, "data_batch_2": pickle.dumps({b"data": Hostile(marker), b"labels": []})}
    write(tmp_path, hostile)
    assert "data_batch_2 is damaged or not the official file" in message_of(tmp_path)
    # And had somebody found another file with the official checksum, it would still run nothing.
    layout = with_checksums(PYTHON_LAYOUT, hostile)
    assert message_of(tmp_path, layouts=[layout]) == (
        f"{tmp_path / 'data_batch_2'} is not a pickle of numpy arrays: "
        f"it refers to {os.system.__module__}.system, which was not loaded"
    )
    assert not marker.exists()


@pytest.mark.parametrize(
    ("layout", "content", "message"),
    [
        (PYTHON_LAYOUT, {b"labels": [1]}, "must hold uint8 'data' of shape (count, 3072)."),
        (
            PYTHON_LAYOUT,
            {b"data": PIXELS[:2, :5], b"labels": [1, 2]},
            "must hold uint8 'data' of shape (count, 3072).",
        ),
        (
            PYTHON_LAYOUT,
            {b"data": PIXELS[:2], b"labels": [1, 10]},
            "must hold a list 'labels' of integers between 0 and 9.",
        ),
        (PYTHON_LAYOUT, {b"data": PIXELS[:2], b"labels": [1]}, "holds 2 images but 1 labels."),
        (BINARY_LAYOUT, bytes(3074), "must hold records of 3073 bytes each, found 3074 bytes."),
        (BINARY_LAYOUT, b"", "must hold records of 3073 bytes each, found 0 bytes."),
        (BINARY_LAYOUT, b"\x0a" + bytes(3072), "must hold labels between 0 and 9, found 10."),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, layout, content, message):
    if isinstance(content, dict):
        content = pickle.dumps(content, protocol=4)
    contents = dict.fromkeys(layout.files, content)
    write(tmp_path, contents)
    first = tmp_path / next(iter(layout.files))
    assert message_of(tmp_path, layouts=[with_checksums(layout, contents)]) == f"{first} {message}"


# --- Downloading what is not ---


def packed(contents, folder=PYTHON.folder, extra=()):
    """A .tar.gz of these files; `extra` holds further members, each with its content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in contents.items():
            tar.addfile(member(f"{folder}/{name}", len(content)), io.BytesIO(content))
        for info, content in extra:
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def member(name, size=0, **fields):
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.fixture
def serve(monkeypatch):
    """Starts a server on 127.0.0.1 that answers each request by calling `reply(handler)`; returns its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with contextlib.ExitStack() as stack:

        def start(reply):
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    with contextlib.suppress(ConnectionError):  # clients that give up are part of these tests
                        reply(self)

                def log_message(self, *arguments):
                    pass

            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/cifar.tar.gz"

        yield start


def send(handler, content, claimed=None):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if claimed is None else claimed))
    handler.end_headers()
    handler.wfile.write(content)


def archive_of(content, url, **changes):
    return dataclasses.replace(Archive(url, sha256(content), len(content), PYTHON, timeout=SECONDS), **changes)


def failure_of(data_dir, archive):
    """The reason given for a failed download, and the check that nothing is left of it."""
    before = sorted(data_dir.rglob("*"))
    message = message_of(data_dir, download=True, archive=archive)
    assert sorted(data_dir.rglob("*")) == before
    start = f"CIFAR-10 is not in {data_dir} (the download failed: "
    end = (
        f"): unpack {archive.url} so that {data_dir / 'cifar-10-batches-py'} holds data_batch_1, data_batch_2, "
        "data_batch_3, data_batch_4, data_batch_5, test_batch."
    )
    assert message.startswith(start) and message.endswith(end)
    return message[len(start) : -len(end)]


WHOLE = packed(PYTHON_CONTENTS, extra=[(member(f"{PYTHON.folder}/readme.html", 4), b"text")])


@pytest.mark.parametrize("place", ["data", "data/cifar-10-batches-py"])
def test_the_archive_is_downloaded_once(tmp_path, serve, place):
    requests, seen = [], []
    url = serve(lambda handler: (requests.append(handler.path), send(handler, WHOLE)))
    settings = {"download": True, "archive": archive_of(WHOLE, url)}
    data = load(tmp_path / place, progress=lambda done, total: seen.append((done, total)), **settings)
    assert seen[-1] == (len(WHOLE), len(WHOLE)) and seen == sorted(seen)
    assert load(tmp_path / place, **settings).fingerprint == data.fingerprint
    assert requests == ["/cifar.tar.gz"]
    # The files and nothing else: no archive, no temporary folder, no readme.
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(tmp_path / "data" / PYTHON.folder / name for name in PYTHON.files)


def test_without_a_folder_the_download_goes_to_the_cache(tmp_path, serve, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    url = serve(lambda handler: send(handler, WHOLE))
    assert len(load(None, download=True, archive=archive_of(WHOLE, url)).x_test) == 3
    assert (tmp_path / "automl" / PYTHON.folder / "test_batch").is_file()


def test_two_downloads_at_once_both_succeed(tmp_path, serve):
    both_asked = threading.Barrier(2, timeout=SECONDS)

    def reply(handler):
        both_asked.wait()
        send(handler, WHOLE)

    archive = archive_of(WHOLE, serve(reply))
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        loads = [executor.submit(load, tmp_path, download=True, archive=archive) for _ in range(2)]
        first, second = (future.result() for future in loads)
    assert first.fingerprint == second.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == [PYTHON.folder]


def test_a_download_that_may_not_be_is_not_tried(tmp_path):
    assert message_of(tmp_path, layouts=cifar10.LAYOUTS) == (
        f"CIFAR-10 is not in {tmp_path} (they are downloaded only to a folder that --data-dir or AUTOML_DATA names): "
        "unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz so that "
        f"{tmp_path / 'cifar-10-batches-py'} holds data_batch_1, data_batch_2, data_batch_3, data_batch_4, "
        "data_batch_5, test_batch."
    )


def test_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
    # The server is closed again, so its port refuses connections.
    assert "Connection refused" in failure_of(tmp_path, archive_of(WHOLE, url))


def test_server_error(tmp_path, serve):
    url = serve(lambda handler: handler.send_error(500))
    assert failure_of(tmp_path, archive_of(WHOLE, url)).startswith("500 Server Error: Internal Server Error for url: ")


def test_truncated_download(tmp_path, serve):
    url = serve(lambda handler: send(handler, WHOLE[:-9], claimed=len(WHOLE)))
    reason = failure_of(tmp_path, archive_of(WHOLE, url))
    assert re.fullmatch(rf"the connection ended after \d+ of {len(WHOLE)} bytes", reason)


def test_download_with_another_checksum(tmp_path, serve):
    other = WHOLE[:-1] + b"?"
    url = serve(lambda handler: send(handler, other))
    assert failure_of(tmp_path, archive_of(WHOLE, url)) == f"expected sha256 {sha256(WHOLE)}, found {sha256(other)}"


def test_download_without_end(tmp_path, serve):
    def reply(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(100_000))

    reason = failure_of(tmp_path, archive_of(WHOLE, serve(reply)))
    assert reason == f"the server sent more than the expected {len(WHOLE)} bytes"


@pytest.mark.parametrize("sent", [None, 1000], ids=["no answer", "part"])
def test_stalled_download(tmp_path, serve, sent):
    given_up = threading.Event()

    def reply(handler):
        if sent is not None:
            send(handler, WHOLE[:sent], claimed=len(WHOLE))
        given_up.wait(timeout=SECONDS)

    archive = archive_of(WHOLE, serve(reply), timeout=0.1)
    try:
        assert failure_of(tmp_path, archive) == "no data came for 0.1 seconds"
    finally:
        given_up.set()


def test_an_answer_that_is_not_http(tmp_path, serve):
    url = serve(lambda handler: handler.wfile.write(b"gibberish\r\n"))
    assert "gibberish" in failure_of(tmp_path, archive_of(WHOLE, url))


def test_a_folder_that_cannot_be_made(tmp_path, serve):
    """A file in the way; as for a folder without permission, which a test run by root cannot make."""
    (tmp_path / "file").write_bytes(b"")
    url = serve(lambda handler: send(handler, WHOLE))
    assert "is not in" in message_of(tmp_path / "file", download=True, archive=archive_of(WHOLE, url))


def test_an_interrupted_download_leaves_nothing(tmp_path, serve):
    def interrupt(done, total):
        raise KeyboardInterrupt

    url = serve(lambda handler: send(handler, WHOLE))
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, download=True, archive=archive_of(WHOLE, url), progress=interrupt)
    assert list(tmp_path.iterdir()) == []


# --- Archives that somebody has tampered with (and given the right checksum) ---


def test_members_outside_the_folder_are_left_out(tmp_path, serve):
    home = tmp_path / "home"
    outside = tmp_path / "outside"
    content = packed(
        PYTHON_CONTENTS,
        extra=[
            (member("../outside", 4), b"evil"),
            (member(f"{PYTHON.folder}/../../outside", 4), b"evil"),
            (member(str(outside), 4), b"evil"),
            (member(f"{PYTHON.folder}/link", type=tarfile.SYMTYPE, linkname=str(outside)), b""),
            (member(f"{PYTHON.folder}/link", 4), b"evil"),
        ],
    )
    url = serve(lambda handler: send(handler, content))
    load(home, download=True, archive=archive_of(content, url))
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert sorted(path.name for path in (home / PYTHON.folder).iterdir()) == sorted(PYTHON.files)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_anything_but_a_plain_file_under_an_expected_name_is_refused(tmp_path, serve, kind):
    secret = tmp_path / "secret"
    secret.write_bytes(PYTHON_CONTENTS["test_batch"])
    rest = {name: content for name, content in PYTHON_CONTENTS.items() if name != "test_batch"}
    link = member(f"{PYTHON.folder}/test_batch", type=kind, linkname=str(secret))
    content = packed(rest, extra=[(link, b"")])
    url = serve(lambda handler: send(handler, content))
    assert failure_of(tmp_path, archive_of(content, url)) == (
        "cifar-10-batches-py/test_batch in the archive is not a plain file of at most 40000000 bytes"
    )


def test_a_folder_that_is_a_link_leads_nowhere(tmp_path, serve):
    """The link comes first, so that the files after it would be written where it points."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = member(PYTHON.folder, type=tarfile.SYMTYPE, linkname=str(outside))
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        tar.addfile(link)
        for name, content in PYTHON_CONTENTS.items():
            tar.addfile(member(f"{PYTHON.folder}/{name}", len(content)), io.BytesIO(content))
    archive = stream.getvalue()
    url = serve(lambda handler: send(handler, archive))
    load(tmp_path / "home", download=True, archive=archive_of(archive, url))
    assert list(outside.iterdir()) == []


def test_an_archive_without_one_of_the_files(tmp_path, serve):
    content = packed({name: content for name, content in PYTHON_CONTENTS.items() if name != "data_batch_4"})
    url = serve(lambda handler: send(handler, content))
    reason = failure_of(tmp_path, archive_of(content, url))
    assert reason == "the archive lacks cifar-10-batches-py/data_batch_4"


@pytest.mark.parametrize("content", [b"not a tar", WHOLE[: len(WHOLE) // 2]], ids=["text", "half"])
def test_an_archive_that_cannot_be_unpacked(tmp_path, serve, content):
    url = serve(lambda handler: send(handler, content))
    assert failure_of(tmp_path, archive_of(content, url))


# --- The real thing ---


def real_cifar10():
    home = Path(os.environ.get("AUTOML_DATA", ""))
    if "AUTOML_DATA" not in os.environ or not (home / PYTHON_LAYOUT.folder).is_dir():
        pytest.skip("set AUTOML_DATA to the folder that holds cifar-10-batches-py")
    return home


def test_official_files():
    data = load_cifar10(real_cifar10(), download=False)
    assert data.x_train.shape == (45_000, 32, 32, 3) and data.x_train.dtype == np.uint8
    assert data.x_validation.shape == (5_000, 32, 32, 3)
    assert data.x_test.shape == (10_000, 32, 32, 3)
    assert np.bincount(np.concatenate([data.y_train, data.y_validation])).tolist() == [5_000] * 10
    assert np.bincount(data.y_test).tolist() == [1_000] * 10
    total = sum(x.sum(axis=(0, 1, 2), dtype=np.int64) for x in (data.x_train, data.x_validation))
    np.testing.assert_allclose(total / (50_000 * 1024) / 255, [0.4914, 0.4822, 0.4465], atol=5e-5)


def test_checksums_of_the_binary_files_belong_to_the_official_images():
    """As they were made: label and pixels of each image in turn."""
    folder = real_cifar10() / PYTHON_LAYOUT.folder
    for (name, expected), original in zip(BINARY_LAYOUT.files.items(), PYTHON_LAYOUT.files, strict=True):
        batch = cifar10.unpickle_arrays((folder / original).read_bytes(), original)
        records = np.concatenate([np.array(batch[b"labels"], np.uint8)[:, np.newaxis], batch[b"data"]], axis=1)
        assert sha256(records.tobytes()) == expected, name
