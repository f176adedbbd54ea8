"""Opens, writes and deletes files in the folders beside a store, without following links.

A store from another user may come with such folders, and a link in them could lead to any file. The path to these
folders is chosen by the user and may contain links. The argument `own` is how many folders at the end of a path are of
this kind, in which no link is followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def folder(path: Path, *, own: int, create: bool = False) -> Iterator[int]:
    """A context with the descriptor of a folder; of its path, the last `own` parts must not be links.

    Raises:
        OSError: the folder does not exist (without `create`), or one of these parts is a link or not a folder.
    """
    path = path.absolute()
    base = path if own == 0 else path.parents[own - 1]
    if create:
        base.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(base, _FOLDER)
    try:
        for name in path.parts[len(path.parts) - own :]:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=descriptor)
            try:
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError:
                _refuse_link(name, descriptor, path)
                raise
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(path: Path, flags: int, *, own: int) -> int:
    """Opens a plain file and returns its descriptor. With O_CREAT, missing folders are made. Raises OSError."""
    with folder(path.parent, own=own, create=bool(flags & os.O_CREAT)) as within:
        return open_within(within, path.name, flags)


def open_within(descriptor: int, name: str, flags: int) -> int:
    """Opens a plain file in an open folder and returns its descriptor. Raises OSError, also for a link, a pipe or a
    device."""
    try:
        # O_NONBLOCK: opening a pipe without a writer would block forever.
        opened = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666, dir_fd=descriptor)
    except OSError:
        _refuse_link(name, descriptor, Path(name))
        raise
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "it is not a plain file", name)
    os.set_blocking(opened, True)
    return opened


def read(path: Path, *, own: int) -> bytes:
    """The content of a file. Raises OSError."""
    with open(open_file(path, os.O_RDONLY, own=own), "rb") as file:
        return file.read()


def write(path: Path, content: bytes, *, own: int, previous: str | None = None) -> None:
    """Writes a file atomically.

    Args:
        previous: the name to which an existing file is renamed first.

    Raises:
        OSError: the file cannot be written; nothing was changed.
    """
    partial = f"{path.stem}.{os.getpid()}.partial"
    with folder(path.parent, own=own, create=True) as within:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=within)  # left by a process that died, or a link
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with open(open_within(within, partial, flags), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if previous is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(path.name, previous, src_dir_fd=within, dst_dir_fd=within)
            os.replace(partial, path.name, src_dir_fd=within, dst_dir_fd=within)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(partial, dir_fd=within)
            raise


def names(path: Path, *, own: int) -> list[str]:
    """The names in a folder; none if it does not exist or is behind a link."""
    try:
        with folder(path, own=own) as descriptor:
            return sorted(os.listdir(descriptor))
    except OSError:
        return []


def remove(path: Path, *, own: int) -> None:
    """Deletes a file, or a link itself. A missing file is no error. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), folder(path.parent, own=own) as within:
        os.unlink(path.name, dir_fd=within)


def remove_if_empty(path: Path, *, own: int) -> None:
    """Deletes a folder if it is empty."""
    with contextlib.suppress(OSError):
        if own == 1:
            path.rmdir()  # which follows no link
        else:
            with folder(path.parent, own=own - 1) as within:
                os.rmdir(path.name, dir_fd=within)


def _refuse_link(name: str, descriptor: int, path: Path) -> None:
    """Raises an OSError with a clear message if `name` is a link."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "it is, or lies behind, a link, which automl does not follow here", str(path))
