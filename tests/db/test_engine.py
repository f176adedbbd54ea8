"""Which files are opened, and which are refused with one sentence before anything is written."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from store_helpers import files_under, make_search, start

from automl.db import engine as engine_module
from automl.db.engine import NETWORK_FILESYSTEMS, open_engine, parse_address, parse_json, refuse_network, shown
from automl.db.records import StoreError
from automl.db.schema import APPLICATION_ID, REVISION
from automl.db.store import Store

SECRET_URL = "postgresql://u:secret@localhost:1/d?password=secret&sslpassword=secret"


def run_sql(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def refused(path: Path, **options: bool) -> str:
    """The sentence with which a file is refused; the file and its folder are unchanged."""
    before = files_under(path.parent)
    with pytest.raises(StoreError) as caught:
        Store(str(path), **options)
    assert files_under(path.parent) == before
    message = str(caught.value)
    assert "\n" not in message and message.endswith((".", path.name))
    return message


EVERY_OPENING = [{"create": True}, {}, {"readonly": True}]


# Foreign files


def other_tables(path: Path) -> None:
    path.unlink()
    run_sql(path, "CREATE TABLE recipes (name TEXT)", f"PRAGMA application_id={APPLICATION_ID}")


def other_mark(path: Path) -> None:
    run_sql(path, "PRAGMA application_id=42")


def other_mark_and_no_tables(path: Path) -> None:
    path.unlink()
    run_sql(path, "PRAGMA application_id=42")


def no_mark(path: Path) -> None:
    run_sql(path, "PRAGMA application_id=0")


def text_file(path: Path) -> None:
    path.write_text("Dear diary, today I searched for architectures.\n" * 100)


def view(path: Path) -> None:
    run_sql(path, "CREATE VIEW spy AS SELECT * FROM searches")


def trigger(path: Path) -> None:
    run_sql(path, "CREATE TRIGGER spy AFTER UPDATE ON searches BEGIN DELETE FROM children; END")


def newer_revision(path: Path) -> None:
    run_sql(path, "UPDATE alembic_version SET version_num='9999'")


STRANGERS = {
    other_tables: "is not an automl store: it has other tables. Choose another --store.",
    other_mark: "is not an automl store: its file has another application id. Choose another --store.",
    other_mark_and_no_tables: "is not an automl store: its file has another application id. Choose another --store.",
    no_mark: "is not an automl store: its file has another application id. Choose another --store.",
    text_file: "cannot be read as a database (file is not a database). Restore it from a backup, or choose another",
    view: "holds a view 'spy' that automl never makes; it is not opened. Use a clean store.",
    trigger: "holds a trigger 'spy' that automl never makes; it is not opened. Use a clean store.",
    newer_revision: f"was written by a newer automl (schema 9999; this program knows up to {REVISION}). Upgrade automl",
}


@pytest.mark.parametrize("options", EVERY_OPENING, ids=str)
@pytest.mark.parametrize("make", STRANGERS, ids=lambda make: make.__name__)
def test_a_foreign_file_is_refused_unchanged(
    sqlite_path: Path, make: Callable[[Path], None], options: dict[str, bool]
) -> None:
    make(sqlite_path)
    leave_wal_mode(sqlite_path, make)
    assert STRANGERS[make] in refused(sqlite_path, **options)


def leave_wal_mode(path: Path, make: Callable[[Path], None]) -> None:
    """Reading a file in WAL mode makes two files beside it; without WAL, the whole folder can be compared."""
    if make is not text_file:
        run_sql(path, "PRAGMA journal_mode=DELETE")


@pytest.mark.parametrize("options", EVERY_OPENING, ids=str)
@pytest.mark.parametrize("kept", [0.5, 0.1], ids=["half", "a tenth"])
def test_a_truncated_file_is_refused_unchanged(sqlite_path: Path, kept: float, options: dict[str, bool]) -> None:
    run_sql(sqlite_path, "PRAGMA journal_mode=DELETE")
    whole = sqlite_path.read_bytes()
    sqlite_path.write_bytes(whole[: int(len(whole) * kept)])
    assert "malformed" in refused(sqlite_path, **options) or "damaged" in refused(sqlite_path, **options)


def damage_a_page(path: Path) -> None:
    run_sql(path, "PRAGMA journal_mode=DELETE")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name='measurements'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def test_a_damaged_page_is_found_before_a_search_writes(sqlite_path: Path) -> None:
    damage_a_page(sqlite_path)
    assert "is damaged" in refused(sqlite_path, create=True)
    with (
        contextlib.closing(Store(str(sqlite_path), readonly=True)) as store,
        pytest.raises(StoreError, match="damaged"),
    ):
        store.check()


def test_a_sound_store_passes_the_check(store: Store) -> None:
    store.check()


@pytest.mark.parametrize("options", EVERY_OPENING[1:], ids=str)
def test_a_missing_store_is_not_made(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "new.db"
    assert refused(path, **options) == (
        f"There is no store at sqlite:///{path}. Start one with: automl search NAME --store {path}"
    )


@pytest.mark.parametrize("options", EVERY_OPENING[1:], ids=str)
def test_an_empty_file_is_no_store(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "new.db"
    path.touch()
    assert "There is no store at" in refused(path, **options)


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    path.touch()
    with contextlib.closing(Store(str(path), create=True)) as store:
        assert store.searches() == []


def test_an_empty_database_is_no_store(new_database: Callable[[str], str]) -> None:
    address = new_database("empty")
    with pytest.raises(StoreError, match=r"holds no automl store yet\. Start one with: automl search NAME --store "):
        Store(address)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "new.db"
    with pytest.raises(StoreError) as caught:
        Store(str(path), create=True)
    assert str(caught.value) == f"The folder {path.parent} for the store new.db does not exist; create it first."
    assert not path.parent.exists()


def test_another_database_of_the_server_is_refused(new_database: Callable[[str], str]) -> None:
    address = new_database("recipes")
    engine = open_engine(parse_address(address))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE recipes (name TEXT)")
    engine.dispose()
    with pytest.raises(StoreError, match="is not an automl store: it has other tables"):
        Store(address, create=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match=r"cannot be made: you may not write in the folder"):
        Store(str(tmp_path / "new.db"), create=True)


# Read only


def test_a_readonly_store_writes_nothing(sqlite_path: Path) -> None:
    with contextlib.closing(Store(str(sqlite_path))) as store:
        search, _ = start(store)
    before = sqlite_path.read_bytes()
    with contextlib.closing(Store(str(sqlite_path), readonly=True)) as store:
        assert str(store) == f"sqlite:///{sqlite_path}"
        assert [found.name for found in store.searches()] == ["tiny"]
        assert len(store.children(search.id)) == 4
        store.check()
        with pytest.raises(StoreError, match="readonly database"):
            make_search(store, "other")
    assert sqlite_path.read_bytes() == before


def test_a_readonly_store_sees_what_a_writer_has_not_checkpointed(sqlite_path: Path) -> None:
    with contextlib.closing(Store(str(sqlite_path))) as writer:
        make_search(writer)
        with contextlib.closing(Store(str(sqlite_path), readonly=True)) as reader:
            assert reader.search("tiny").name == "tiny"


@pytest.mark.parametrize("name", ["with space.db", "per%20cent.db", "que?stion#.db", "quote'\".db", "ünï.db"])
def test_any_file_name_will_do(sqlite_path: Path, name: str) -> None:
    path = sqlite_path.rename(sqlite_path.with_name(name))
    for options in EVERY_OPENING:
        with contextlib.closing(Store(str(path), **options)) as store:
            assert store.file == path and store.searches() == []
    assert {file.name for file in path.parent.iterdir()} <= {name, f"{name}-wal", f"{name}-shm"}


# Waiting for locks


def test_a_lock_that_stays_is_one_sentence(sqlite_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 0.05)
    with (
        contextlib.closing(Store(str(sqlite_path))) as store,
        contextlib.closing(sqlite3.connect(sqlite_path)) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError) as caught:
            make_search(store)
        assert str(caught.value) == f"The store {store} did not answer: database is locked"
        assert store.searches() == []  # reading does not wait
        other.rollback()
        make_search(store)


def test_a_full_disk_loses_nothing_and_is_one_sentence(sqlite_path: Path) -> None:
    with contextlib.closing(Store(str(sqlite_path))) as store:
        with store._engine.connect() as connection:
            (pages,) = connection.exec_driver_sql("PRAGMA page_count").one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreError, match="did not answer: database or disk is full"):
            for number in range(1000):
                make_search(store, f"search-{number}")
        held = len(store.searches())
        store.check()
        with store._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=1073741823")
        make_search(store, "after")
        assert len(store.searches()) == held + 1


# Addresses


@pytest.mark.parametrize("backend", ["mysql", "oracle", "postgres", "mssql+pyodbc"])
def test_other_databases_are_refused(backend: str) -> None:
    name = backend.partition("+")[0]
    with pytest.raises(StoreError) as caught:
        Store(f"{backend}://u:secret@h/d")
    assert str(caught.value) == (f"The store cannot be on {name}; use sqlite:///FILE or postgresql://HOST/DATABASE.")


@pytest.mark.parametrize("address", ["://secret", "postgresql://h:secret/d", "a b://u:secret@h"])
def test_an_invalid_address_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(address)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x.db?uri=true"])
def test_a_store_in_memory_is_refused(address: str) -> None:
    with pytest.raises(StoreError, match="A SQLite store must be a plain file; write sqlite:///FILE or a file's path"):
        Store(address, create=True)


def test_the_home_folder_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_address("~/my.db").database == str(tmp_path / "my.db")


def test_secrets_are_not_shown() -> None:
    url = parse_address(SECRET_URL)
    assert shown(url) == "postgresql://u@localhost:1/d"
    assert url.password == "secret"  # but the connection uses them


def everything_said(error: BaseException | None) -> str:
    said = ""
    while error is not None:
        said += f"{error} {error!r} "
        error = error.__cause__ or error.__context__
    return said


def test_a_server_that_does_not_answer_is_one_sentence_without_secrets() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as caught:
        Store(SECRET_URL)
    assert str(caught.value).startswith("The store postgresql://u@localhost:1/d cannot be opened: ")
    assert "\n" not in str(caught.value)
    assert "secret" not in everything_said(caught.value)


def test_an_open_store_shows_no_secrets(postgres_store: str) -> None:
    with contextlib.closing(Store(f"{postgres_store}&password=secret", create=True)) as store:
        assert "secret" not in f"{store} {store!r}"
        with contextlib.suppress(StoreError):
            make_search(store, "twice")
        with pytest.raises(StoreError) as caught:
            make_search(store, "twice")
        assert "secret" not in everything_said(caught.value)
        store.delete("twice")


def test_a_server_that_goes_away_is_one_sentence(postgres_store: str) -> None:
    with contextlib.closing(Store(postgres_store)) as store:
        store._engine.dispose()
        store._engine = open_engine(parse_address(SECRET_URL))
        with pytest.raises(StoreError, match="did not answer: ") as caught:
            store.searches()
        assert "secret" not in everything_said(caught.value)


def test_without_its_package_postgresql_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from automl.db.store import Store\n"
        "try: Store('postgresql://u:secret@h/d')\n"
        "except Exception as error: print(error)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "PostgreSQL needs the package psycopg: pip install 'automl-reinforce[postgres]'.\n"


# Network filesystems

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
overlay /var/lib/box overlay rw 0 0
host /shared 9p rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/ann/local ext4 rw 0 0
//server/files /mnt/with\\040space cifs rw 0 0
/dev/sdc1 /twice ext4 rw 0 0
server:/twice /twice nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ann/store.db", "nfs4"),
        ("/home/new/folder/store.db", "nfs4"),
        ("/mnt/with space/store.db", "cifs"),
        ("/twice/store.db", "nfs"),
    ],
)
def test_sqlite_on_a_network_filesystem_is_refused(path: str, kind: str) -> None:
    with pytest.raises(StoreError) as caught:
        refuse_network(Path(path), MOUNTS)
    assert str(caught.value) == (
        f"{path} is on a network filesystem ({kind}), where SQLite can lose data; put the store on a local disk, "
        "or use postgresql://HOST/DATABASE."
    )


@pytest.mark.parametrize(
    "path",
    ["/store.db", "/homes/store.db", "/home/ann/local/store.db", "/var/lib/box/s.db", "/shared/s.db", "/mnt/s.db"],
)
def test_sqlite_on_a_local_filesystem_is_welcome(path: str) -> None:
    refuse_network(Path(path), MOUNTS)
    refuse_network(Path(path), "")


@pytest.mark.parametrize("kind", sorted(NETWORK_FILESYSTEMS))
def test_a_link_into_a_network_filesystem_is_followed(tmp_path: Path, kind: str) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(StoreError, match="network filesystem"):
        refuse_network(tmp_path / "link" / "store.db", f"x / ext4 rw 0 0\nx {real} {kind} rw 0 0\n")


def test_a_store_on_a_network_filesystem_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_refuse = refuse_network
    monkeypatch.setattr(engine_module, "refuse_network", lambda path: real_refuse(path, "x / nfs rw 0 0\n"))
    assert "is on a network filesystem (nfs)" in refused(tmp_path / "new.db", create=True)


def test_a_copy_of_a_store_is_a_store(sqlite_path: Path, tmp_path: Path) -> None:
    with contextlib.closing(Store(str(sqlite_path))) as store:
        make_search(store)
    copy = str(shutil.copy(sqlite_path, tmp_path / "copy.db"))
    with contextlib.closing(Store(copy, create=True)) as store:
        assert store.search("tiny").name == "tiny"


def test_a_json_value_may_be_a_bare_number():
    """A spec can be a number, and SQLite returns it as a number."""
    assert [parse_json(value) for value in (44, 0.5, "44", '"44"', "null")] == [44, 0.5, 44, "44", None]
    for wrong in (float("nan"), float("-inf"), "NaN", None, b"\xff"):
        with pytest.raises(StoreError):
            parse_json(wrong)
