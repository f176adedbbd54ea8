"""The earlier searches that a user names, as `SEARCH[@STORE]`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from automl.db.engine import parse_address, shown
from automl.db.records import StoreError, is_search_name
from automl.paths import store_address

FLAG = "--warm-start"


class Place(NamedTuple):
    """Where a store is: a SQLite file, or the address of a database without its password."""

    file: Path | None
    database: str


@dataclasses.dataclass(frozen=True)
class Reference:
    """An earlier search that a user names.

    Attributes:
        name: of the search.
        address: of its store.
        flag: what the user has written it with, for messages.
        place: of the store, the same for all addresses of it.
    """

    name: str
    address: str
    flag: str
    place: Place


def with_store(text: str, own_store: str) -> str:
    """A reference that names the store also where the user does not."""
    return text if "@" in text else f"{text}@{own_store}"


def read_references(
    texts: Sequence[str], own_store: str, *, own_name: str | None = None, flag: str = FLAG
) -> list[Reference]:
    """Reads the references of one search. Opens no store.

    Args:
        texts: `SEARCH` or `SEARCH@STORE`. No name of a search has an `@`, but the address of a store may.
        own_store: address of the store that has the searches which are named without one.
        own_name: name of the new search in `own_store`; None if it is in another store.
        flag: what the user has written them with.

    Raises:
        ValueError: a reference has another form, is there twice, or names the new search itself.
        StoreError: an address is none of a store, or there is no such file.
    """
    references: list[Reference] = []
    for text in texts:
        name, at, address = text.partition("@")
        if not is_search_name(name) or (at and not address.strip()):
            raise ValueError(
                f"{flag} {name + at!r} is not of the form SEARCH or SEARCH@STORE, where STORE is a file or a "
                "database URL, for example first@old.db."
            )
        address = store_address(address) if at else own_store
        with reading_errors(flag, name):
            place = _place_of(address)
        if name == own_name and place == _place_of(own_store):
            raise ValueError(f"{flag} names {name!r}, which is the new search itself; name an earlier one.")
        if place.file is not None and not place.file.exists():
            raise StoreError(
                f"{flag} cannot read the search {name!r}: there is no store {address}; write SEARCH@STORE with the "
                "file of its store."
            )
        if (name, place) in [(other.name, other.place) for other in references]:
            raise ValueError(
                f"{flag} names the search {name!r} of {shown(parse_address(address))} twice; name it once."
            )
        references.append(Reference(name, address, flag, place))
    return references


@contextlib.contextmanager
def reading_errors(flag: str, name: str) -> Iterator[None]:
    """Says of a StoreError which earlier search it is about."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{flag} cannot read the search {name!r}: {error}") from error


def _place_of(address: str) -> Place:
    url = parse_address(address)
    if url.get_backend_name() == "sqlite":
        return Place(Path(url.database or "").resolve(), "")
    return Place(None, url.set(password=None).render_as_string())
