"""Files in our folders: written whole or not at all, and never through a link, a pipe or a device."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from automl.db import own_files

IS_LINK = "it is, or lies behind, a link, which automl does not follow here"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A user's folder with a file, which no link may reach."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "file").write_text("mine")
    return folder


def test_a_file_is_written_read_and_deleted(tmp_path: Path) -> None:
    path = tmp_path / "store.db.logs" / "tiny" / "file"
    own_files.write(path, b"one", own=2, previous="before")
    own_files.write(path, b"two", own=2, previous="before")
    assert own_files.read(path, own=2) == b"two"
    assert own_files.names(path.parent, own=2) == ["before", "file"]
    assert path.with_name("before").read_bytes() == b"one"
    own_files.remove_if_empty(path.parent, own=2)  # it is not
    for name in ("before", "file", "none"):
        own_files.remove(path.with_name(name), own=2)
    own_files.remove_if_empty(path.parent, own=2)
    own_files.remove_if_empty(path.parent.parent, own=1)
    assert list(tmp_path.iterdir()) == []
    assert own_files.names(path.parent, own=2) == []
    own_files.remove(path, own=2)


def test_the_path_to_our_folders_may_contain_links(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to("disk")
    own_files.write(tmp_path / "home" / "store.db.logs" / "file", b"text", own=1)
    assert (tmp_path / "disk" / "store.db.logs" / "file").read_bytes() == b"text"


def log(path: Path) -> None:
    with open(own_files.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, own=2), "ab") as file:
        file.write(b"text")


ACTS: dict[str, Callable[[Path], object]] = {
    "read": lambda path: own_files.read(path, own=2),
    "write": lambda path: own_files.write(path, b"text", own=2),
    "log": log,
    "remove": lambda path: own_files.remove(path, own=2),
}


@pytest.mark.parametrize("level", ["store.db.logs", "tiny"])
@pytest.mark.parametrize("act", ACTS)
def test_no_folder_of_ours_is_a_link(tmp_path: Path, victim: Path, act: str, level: str) -> None:
    link = tmp_path / "store.db.logs" if level == "store.db.logs" else tmp_path / "store.db.logs" / "tiny"
    link.parent.mkdir(exist_ok=True)
    if level == "store.db.logs":
        (tmp_path / "others" / "tiny").mkdir(parents=True)
        (tmp_path / "others" / "tiny" / "file").write_text("mine")
        link.symlink_to(tmp_path / "others")
    else:
        link.symlink_to(victim)
    target = (link / "tiny" if level == "store.db.logs" else link).resolve()
    with pytest.raises(OSError) as caught:
        ACTS[act](tmp_path / "store.db.logs" / "tiny" / "file")
    assert caught.value.strerror == IS_LINK
    assert [path.name for path in target.iterdir()] == ["file"] and (target / "file").read_text() == "mine"
    assert own_files.names(tmp_path / "store.db.logs" / "tiny", own=2) == []
    own_files.remove_if_empty(tmp_path / "store.db.logs" / "tiny", own=2)
    assert target.is_dir()


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path, victim: Path) -> None:
    folder = tmp_path / "store.db.logs" / "tiny"
    folder.mkdir(parents=True)
    path = folder / "file"
    for target in (victim / "file", victim / "new"):  # one that is there, and one that would be made
        path.symlink_to(target)
        for act in ("read", "log"):
            with pytest.raises(OSError) as caught:
                ACTS[act](path)
            assert caught.value.strerror == IS_LINK
        own_files.remove(path, own=2)  # the link itself
        path.symlink_to(target)
        own_files.write(path, b"text", own=2)  # in place of the link
        assert not path.is_symlink() and path.read_bytes() == b"text"
        path.unlink()
    assert [found.name for found in victim.iterdir()] == ["file"] and (victim / "file").read_text() == "mine"


def test_a_link_under_the_name_of_a_partial_file_is_not_followed(tmp_path: Path, victim: Path) -> None:
    folder = tmp_path / "store.db.logs" / "tiny"
    folder.mkdir(parents=True)
    (folder / f"file.{os.getpid()}.partial").symlink_to(victim / "file")
    own_files.write(folder / "file.npz", b"text", own=2)
    assert own_files.names(folder, own=2) == ["file.npz"] and (victim / "file").read_text() == "mine"


def test_a_pipe_is_neither_waited_for_nor_read(tmp_path: Path) -> None:
    folder = tmp_path / "store.db.logs" / "tiny"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "file")
    for act in ("read", "log"):
        with pytest.raises(OSError):
            ACTS[act](folder / "file")
