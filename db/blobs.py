"""Packs arrays as npz files without pickle, and unpacks them after a check of their checksum."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

from automl.db.records import StoreError

if TYPE_CHECKING:  # NumPy takes a sixth of a second to import, and commands that only show a store do not need it
    import numpy as np


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Packs arrays as the bytes of an npz file. Raises ValueError for an array of Python objects."""
    import numpy as np

    buffer = io.BytesIO()
    # `np.savez` takes three times as long for the many small arrays of a controller's state.
    with zipfile.ZipFile(buffer, "w") as file:
        for name, array in arrays.items():
            array = np.asarray(array)
            if array.dtype.hasobject:
                raise ValueError(f"{name!r} is an array of objects; only plain arrays are stored.")
            header = _header(array.dtype, array.shape)
            member = zipfile.ZipInfo(f"{name}.npy")
            member.file_size = len(header) + array.nbytes
            with file.open(member, "w") as stream:
                stream.write(header)
                stream.write(array.tobytes())
    return buffer.getvalue()


@functools.lru_cache(maxsize=1024)
def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def unpack(blob: bytes, expected_sha256: str | None) -> dict[str, np.ndarray]:
    """Unpacks the arrays that `pack` packed.

    Raises:
        StoreError: the bytes do not have the expected checksum, or are not plain arrays.
    """
    import numpy as np

    actual_sha256 = sha256(blob)
    if actual_sha256 != expected_sha256:
        raise StoreError(
            f"Stored arrays are damaged: their checksum should be {expected_sha256} and is {actual_sha256}. "
            "Restore the database from a backup."
        )
    try:
        with np.lib.npyio.NpzFile(io.BytesIO(blob), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member is not an array")
        return arrays
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        # The checksum is right, so another program stored this: pickled objects, or bytes that are no npz file.
        raise StoreError(f"Stored arrays are not plain arrays ({error}); they were not read.") from error


def sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()
