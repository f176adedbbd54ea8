"""Text as numbers of words: vocabularies, parts, and what is refused."""

import hashlib
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from waiting import SECONDS

from automl.child_trainers.data import ptb
from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.data.ptb import PtbFile, load_ptb
from automl.child_trainers.data.pydoc_topics import load_pydoc
from automl.child_trainers.data.text import END, UNKNOWN, load_text, make_text, tokens_of

DATA = Path(os.environ.get("AUTOML_DATA", ""))
PARTS = {"train": ["b", "a", "a", "c", "c", "c"], "validation": ["a", "d"], "test": ["c", "b"]}


def words(data, part):
    return [data.vocabulary[index] for index in getattr(data, part)]


def test_types_stand_in_order_of_frequency_and_strange_ones_are_unknown():
    data = make_text("t", PARTS)
    assert data.vocabulary == ("c", "a", "b", UNKNOWN)
    assert data.train.tolist() == [2, 1, 1, 0, 0, 0] and data.train.dtype == np.int32
    assert words(data, "validation") == ["a", UNKNOWN]


def test_no_type_is_unknown_where_all_are_known():
    assert make_text("t", PARTS | {"validation": ["a"]}).vocabulary == ("c", "a", "b")


def test_equals_in_frequency_stand_in_alphabetical_order():
    assert make_text("t", {"train": list("dbca"), "validation": ["a"], "test": ["a"]}).vocabulary == tuple("abcd")


def test_a_limited_vocabulary_counts_the_unknown():
    data = make_text("t", PARTS, vocabulary_size=2)
    assert data.vocabulary == (UNKNOWN, "c")  # three of each in training, and then in alphabetical order
    assert words(data, "train") == [UNKNOWN] * 3 + ["c"] * 3
    assert make_text("t", PARTS, vocabulary_size=100).vocabulary == ("c", "a", "b", UNKNOWN)


def test_a_text_that_says_unknown_itself():
    data = make_text("t", {"train": ["a", UNKNOWN, "a"], "validation": ["b"], "test": ["a"]})
    assert data.vocabulary == ("a", UNKNOWN)
    assert words(data, "train") == ["a", UNKNOWN, "a"] and words(data, "validation") == [UNKNOWN]


def test_tokens():
    assert tokens_of(" one two \n\nthree", "word") == ["one", "two", END, END, "three", END]
    assert tokens_of("ab\nc", "character") == ["a", "b", END, "c"]


def test_too_many_types_are_refused_with_the_way_out(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("\n".join(f"w{number}" for number in range(100_000)))
    with pytest.raises(DataError) as caught:
        load_text(path, level="word", vocabulary_size=None)
    assert str(caught.value) == (
        "numbers.txt has 80,001 different words, too many for a model; keep only the most frequent with "
        "--set task.vocabulary_size=10000, or read it as --set task.level=character."
    )
    assert len(load_text(path, level="word", vocabulary_size=1000).vocabulary) == 1000  # every second word ends a line
    path.write_text("\n".join(" ".join(f"w{number + place}" for place in range(9)) for number in range(0, 27_000, 9)))
    with pytest.raises(DataError) as caught:
        load_text(path, level="word", vocabulary_size=1000)
    assert str(caught.value) == (
        "numbers.txt has 21,601 different words, and 86% of its text are none of the 999 most frequent, so a model "
        "would learn little of it; raise task.vocabulary_size, or read it as --set task.level=character."
    )
    assert len(load_text(path, level="character", vocabulary_size=None).vocabulary) == 13
    with pytest.raises(DataError, match=r"different characters, .* raise task\.vocabulary_size\.$"):
        load_text(path, level="character", vocabulary_size=2)


def test_a_person_s_text_in_tenths(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("".join(f"a{number}\n" for number in range(10)))
    data = load_text(path, level="word", vocabulary_size=None)
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 2, 2)
    assert words(data, "train")[:4] == ["a0", END, "a1", END]
    assert data.name == "mine.txt" and data.level == "word"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; a language model is trained on running text."),
        (b" \n \n", "is empty; a language model is trained on running text."),
        (
            "\ufeffein\u4e00\u53e5\n".encode(),
            "holds only 1 word in one line, too little to learn from; read a text without spaces as --set "
            "task.level=character.",
        ),
        (b"good\nb\xe4d\n", "is not UTF-8: byte 0xe4 at position 6; save it as UTF-8."),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, content, message):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_text(path, level="word", vocabulary_size=None)
    assert str(caught.value) == f"{path} {message}"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt cannot be read: No such file or directory\.$"):
        load_text(tmp_path / "none.txt", level="word", vocabulary_size=None)


def test_lines_end_as_on_any_system(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"one\r\ntwo\rthree\n" * 5)
    data = load_text(path, level="character", vocabulary_size=None)
    assert "\r" not in data.vocabulary and "\n" not in data.vocabulary and END in data.vocabulary


def test_a_byte_order_mark_is_no_word(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffone\ntwo\n".encode())
    assert words(load_text(path, level="word", vocabulary_size=None), "train") == ["one", END, "two"]


@pytest.mark.parametrize("ending", ["", "\n", "\r\n\r\n"])
def test_a_text_of_one_line_is_read_as_any_other(tmp_path, ending):
    path = tmp_path / "mine.txt"
    path.write_bytes(("\ufeff " + "a b c d e " * 10 + ending).encode())
    read = load_text(path, level="word", vocabulary_size=None)
    assert (len(read.train), len(read.validation), len(read.test)) == (40, 5, 5)
    assert read.vocabulary == tuple("abcde")  # no end of a line, and nothing unknown
    read = load_text(path, level="character", vocabulary_size=None)
    assert (len(read.train), len(read.validation), len(read.test)) == (79, 10, 10)
    assert set(read.vocabulary) == set("abcde ")
    path.write_text("too short")
    with pytest.raises(DataError, match=r"holds only 9 characters in one line, too little to learn from\.$"):
        load_text(path, level="character", vocabulary_size=None)


def test_limits():
    data = make_text("t", PARTS)
    limited = data.limit(3, 1)
    assert (len(limited.train), len(limited.validation), len(limited.test)) == (3, 1, 2)
    assert data.limit(None, None).train is not None and len(data.limit(None, None).train) == 6
    with pytest.raises(DataError) as caught:
        data.limit(7, None)
    assert str(caught.value) == (
        "t has 6 words in its part for train, so task.num_train cannot be 7; take them all with --set "
        "task.num_train=null."
    )


def test_a_fingerprint_is_of_the_text_and_how_it_is_read():
    data = make_text("t", PARTS)
    assert data.fingerprint == make_text("other", PARTS).fingerprint
    others = [
        make_text("t", PARTS, vocabulary_size=2),
        make_text("t", PARTS | {"test": ["c", "a"]}),
        make_text("t", {**PARTS, "train": ["b", "a", "a", "c", "c", "e"]}),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_the_help_that_every_python_carries():
    data = load_pydoc(level="word", vocabulary_size=1000)
    assert len(data.vocabulary) == 1000 and {UNKNOWN, END} < set(data.vocabulary[:5])
    assert 40_000 < len(data.train) < 80_000 and len(data.validation) > 4_000
    assert all(word in (UNKNOWN, END) or word.replace("'", "").isalpha() for word in data.vocabulary)
    characters = load_pydoc(level="character", vocabulary_size=None)
    assert len(characters.vocabulary) < 40 and len(characters.train) > 200_000


@pytest.mark.skipif(not (DATA / "ptb").is_dir(), reason="the Penn Treebank is not in AUTOML_DATA")
def test_the_published_penn_treebank():
    data = load_ptb(DATA)
    assert (len(data.train), len(data.validation), len(data.test)) == (929_589, 73_760, 82_430)
    assert len(data.vocabulary) == 10_000 and data.vocabulary[:3] == ("the", UNKNOWN, END)
    assert words(data, "validation")[:5] == ["consumers", "may", "want", "to", "move"]


CONTENTS = {"train": b"a b\nb c\n", "validation": b"a\n", "test": b"c\n"}


def files_of(url="", **changes):
    names = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}
    return {
        part: PtbFile(
            names[part], hashlib.sha256(content).hexdigest(), len(content), f"{url}/{names[part]}", timeout=SECONDS
        )
        for part, content in (CONTENTS | changes).items()
    }


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    for part, file in files_of().items():
        (folder / file.name).write_bytes(CONTENTS[part])
    handler = lambda *arguments: http.server.SimpleHTTPRequestHandler(*arguments, directory=str(folder))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


def test_missing_files_are_downloaded_once(tmp_path, server):
    home = tmp_path / "home"
    told = []
    data = load_ptb(home, files=files_of(server), progress=lambda done, total: told.append((done, total)))
    assert words(data, "train") == ["a", "b", END, "b", "c", END]
    assert sorted(path.name for path in (home / "ptb").iterdir()) == ["ptb.test.txt", "ptb.train.txt", "ptb.valid.txt"]
    assert told[-1] == (2, 2)
    again = load_ptb(home, files=files_of("http://127.0.0.1:9"))
    assert again.fingerprint == data.fingerprint


def test_a_failed_download_says_what_to_do(tmp_path, server):
    wrong = files_of(server, train=b"a b\nb d\n")
    with pytest.raises(DataError) as caught:
        load_ptb(tmp_path / "home", files=wrong)
    message = str(caught.value)
    assert message.startswith(
        f"The Penn Treebank is not in {tmp_path / 'home' / 'ptb'} (the download failed: expected "
    )
    assert message.endswith(f"put ptb.train.txt there, for example from {server}/ptb.train.txt")
    assert list((tmp_path / "home" / "ptb").iterdir()) == []


@pytest.mark.parametrize("folder", ["ptb", "simple-examples/data", "."])
def test_files_are_found_where_people_have_them(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for part, file in files_of().items():
        (tmp_path / folder / file.name).write_bytes(CONTENTS[part])
    assert len(load_ptb(tmp_path, files=files_of()).train) == 6


def test_a_damaged_file_is_refused(tmp_path):
    for part, file in files_of().items():
        (tmp_path / file.name).write_bytes(CONTENTS[part])
    (tmp_path / "ptb.valid.txt").write_bytes(b"b\n")
    with pytest.raises(DataError, match=r"ptb\.valid\.txt is damaged or not the published file: expected sha256 "):
        load_ptb(tmp_path, files=files_of())


def test_where_files_are_looked_for_without_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(ptb.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    (tmp_path / "automl" / "ptb").mkdir(parents=True)
    for part, file in files_of().items():
        (tmp_path / "automl" / "ptb" / file.name).write_bytes(CONTENTS[part])
    assert len(load_ptb(files=files_of()).train) == 6
