"""CIFAR-10: 60,000 colour photographs of 32 by 32 pixels in ten classes.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images". The validation set of 5,000 random
training images is that of Zoph & Le 2017 (arXiv:1611.01578), section 4.1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import platformdirs

from automl.child_trainers.data.dataset import DataError, ImageData, split
from automl.child_trainers.data.download import NO_DOWNLOAD, Progress, describe_failure, fetch
from automl.child_trainers.data.numpy_unpickler import unpickle_arrays

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_BYTES = 3 * 32 * 32
MAX_FILE_BYTES = 40_000_000  # the limit for reading a file; official files have at most 31,035,999 bytes


@dataclasses.dataclass(frozen=True)
class Layout:
    """A file format of the data set in a folder.

    Attributes:
        folder: the official name of the folder.
        train: sha256 in hex by file name, in the order in which the files are concatenated.
        test: the same for the test files.
        read: a function of a file's content, and of its path for messages, that returns images uint8
            (count, 32, 32, 3) and labels int32 (count,).
    """

    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    read: Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]

    @property
    def files(self) -> dict[str, str]:
        return {**self.train, **self.test}


@dataclasses.dataclass(frozen=True)
class Archive:
    """A download that unpacks into the folder of a layout.

    Attributes:
        url: http or https.
        sha256: in hex.
        num_bytes: the exact size in bytes.
        layout: the layout of its files.
        timeout: seconds without an answer or another byte after which the download fails.
    """

    url: str
    sha256: str
    num_bytes: int
    layout: Layout
    timeout: float = 30.0


def _read_python_file(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    batch = unpickle_arrays(content, name)
    pixels, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (IMAGE_BYTES,):
        raise DataError(f"{name} must hold uint8 'data' of shape (count, {IMAGE_BYTES}).")
    if not isinstance(labels, list) or not all(isinstance(label, int) and 0 <= label < 10 for label in labels):
        raise DataError(f"{name} must hold a list 'labels' of integers between 0 and 9.")
    if len(labels) != len(pixels):
        raise DataError(f"{name} holds {len(pixels)} images but {len(labels)} labels.")
    return _to_images(pixels), np.array(labels, np.int32)


def _read_binary_file(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    record_bytes = 1 + IMAGE_BYTES  # the label comes first
    if not content or len(content) % record_bytes:
        raise DataError(f"{name} must hold records of {record_bytes} bytes each, found {len(content)} bytes.")
    records = np.frombuffer(content, np.uint8).reshape(-1, record_bytes)
    labels = records[:, 0].astype(np.int32)
    if labels.max() > 9:
        raise DataError(f"{name} must hold labels between 0 and 9, found {labels.max()}.")
    return _to_images(records[:, 1:]), labels


def _to_images(pixels: np.ndarray) -> np.ndarray:
    """Converts rows of all red, all green and all blue values, uint8 (count, 3072), to uint8 (count, 32, 32, 3)."""
    # Made contiguous, because concatenation and indexing would keep the old memory order of the axes.
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


# sha256 of the files whose md5 sums torchvision.datasets.CIFAR10 checks.
PYTHON_LAYOUT = Layout(
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
        "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
        "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
        "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
        "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    },
    test={"test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831"},
    read=_read_python_file,
)
# Computed from the Python files above: for each image in order, one byte of label and its 3,072 bytes of `data`. This
# is the content of the official binary files. The same sums, and md5 sums computed in the same way, are published
# elsewhere (md5 of data_batch_1.bin: 5dd7e06a14cb22eb9f671a540d1b7c25).
BINARY_LAYOUT = Layout(
    folder="cifar-10-batches-bin",
    train={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    },
    test={"test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"},
    read=_read_binary_file,
)
LAYOUTS = (PYTHON_LAYOUT, BINARY_LAYOUT)
ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    num_bytes=170_498_071,
    layout=PYTHON_LAYOUT,
)


def load_cifar10(
    data_dir: Path | None,
    *,
    download: bool = True,
    progress: Progress | None = None,
    num_validation: int = 5000,
    seed: int = 0,
    layouts: Sequence[Layout] = LAYOUTS,
    archive: Archive = ARCHIVE,
) -> ImageData:
    """Loads CIFAR-10: 45,000 training, 5,000 validation and 10,000 test images; uint8 (count, 32, 32, 3), RGB.

    The sha256 of every file is checked before the file is parsed. If no file is found, the official archive is
    downloaded; two processes may do so at the same time.

    Args:
        data_dir: the folder of one of the layouts, or its parent folder; None is this user's cache folder.
        download: whether missing data may be downloaded.
        progress: called as `progress(done_bytes, total_bytes)` during a download.
        num_validation: the number of training images that are held out for validation.
        seed: of the split. Every child and every export needs the same split, so it is not the search's seed.
        layouts: the allowed layouts; if several are equally complete, the first is used.
        archive: the archive to download.

    Raises:
        DataError: files are missing, damaged or not the official ones, or the download failed.
    """
    home = Path(platformdirs.user_cache_dir("automl")) if data_dir is None else Path(data_dir)
    found = _find(home, layouts)
    if found is None:
        if not download:
            raise DataError(_missing(home, archive, NO_DOWNLOAD))
        _download(home, archive, progress)
        found = archive.layout, _unpacked_folder(home, archive.layout)
    layout, folder = found
    x, y = _read_files(folder, layout.train, layout.read)
    x_test, y_test = _read_files(folder, layout.test, layout.read)
    x_train, y_train, x_validation, y_validation = split(x, y, num_validation, seed)
    return ImageData(
        name="cifar10",
        x_train=x_train,
        y_train=y_train,
        x_validation=x_validation,
        y_validation=y_validation,
        x_test=x_test,
        y_test=y_test,
        num_classes=len(CLASS_NAMES),
    )


def _find(home: Path, layouts: Sequence[Layout]) -> tuple[Layout, Path] | None:
    """The layout and the folder with the most files, or None if there are no files. An incomplete folder counts as
    found: it is better to name the missing file than to write into a folder of the user's."""
    candidates = [(layout, folder) for layout in layouts for folder in (home / layout.folder, home)]

    def num_files(candidate: tuple[Layout, Path]) -> int:
        layout, folder = candidate
        return sum(os.path.exists(folder / name) for name in layout.files)

    best = max(candidates, key=num_files)
    return best if num_files(best) else None


def _read_files(
    folder: Path, checksums: Mapping[str, str], read: Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for name, sha256 in checksums.items():
        path = folder / name
        x, y = read(_checked_content(path, sha256), str(path))
        images.append(x)
        labels.append(y)
    return np.concatenate(images), np.concatenate(labels)


def _checked_content(path: Path, sha256: str) -> bytes:
    """Reads a file and checks its sha256. Parsing uses the checked bytes, so a later change of the file is harmless."""
    if not os.path.isfile(path):
        raise DataError(
            f"{path} is missing, while other files of CIFAR-10 are there; add it, or remove those to have all of them "
            "downloaded."
        )
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is damaged or not the official file: expected sha256 {sha256}, "
            f"found {found} in {len(content)} bytes; replace it, or remove all files of CIFAR-10 there to have them "
            "downloaded."
        )
    return content


def _unpacked_folder(home: Path, layout: Layout) -> Path:
    return home if home.name == layout.folder else home / layout.folder


def _missing(home: Path, archive: Archive, reason: str) -> str:
    """The message for missing data, which says how to add them."""
    folder = _unpacked_folder(home, archive.layout)
    return (
        f"CIFAR-10 is not in {home} ({reason}): unpack {archive.url} "
        f"so that {folder} holds {', '.join(archive.layout.files)}."
    )


def _download(home: Path, archive: Archive, progress: Progress | None) -> None:
    """Downloads, checks and unpacks the archive beside its destination, then renames the folder.

    The rename is atomic, so no process sees an incomplete folder. If two processes download, the second finds the
    folder of the first.
    """
    destination = _unpacked_folder(home, archive.layout)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".cifar10-", dir=destination.parent) as unique:
            packed = Path(unique, "archive.tar.gz")
            fetch(archive, packed, progress)
            unpacked = _unpack(packed, archive.layout, Path(unique))
            try:
                os.replace(unpacked, destination)
            except OSError:
                # The folder is not empty any more: another process was faster.
                if not any(os.path.exists(destination / name) for name in archive.layout.files):
                    raise
    except (OSError, tarfile.TarError, EOFError, DataError) as error:
        raise DataError(_missing(home, archive, f"the download failed: {describe_failure(error, archive)}")) from error


def _unpack(packed: Path, layout: Layout, into: Path) -> Path:
    """Extracts only the files of the layout. Raises DataError if one of them is not a regular file."""
    missing = {f"{layout.folder}/{name}" for name in layout.files}
    with tarfile.open(packed, "r:gz") as tar:
        for member in tar:
            if member.name not in missing:
                continue
            if not member.isreg() or member.size > MAX_FILE_BYTES:
                raise DataError(f"{member.name} in the archive is not a plain file of at most {MAX_FILE_BYTES} bytes")
            tar.extract(member, into, filter="data")
            missing.remove(member.name)
    if missing:
        raise DataError(f"the archive lacks {min(missing)}")
    return into / layout.folder
