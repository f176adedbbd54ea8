"""Logs and checkpoints of a search in its folder, which may come from somebody else."""

import os

import numpy as np
import pytest

from automl.child_trainers.artefacts import LOG_TAIL, FolderArtefacts, artefacts_from_json
from automl.db.records import StoreError

ARRAYS = {"w": np.arange(3.0)}


@pytest.fixture
def artefacts(tmp_path):
    return FolderArtefacts(tmp_path / "automl.db.logs" / "mine")


def test_they_go_to_workers_as_json(artefacts):
    assert artefacts_from_json(artefacts.to_json()) == artefacts
    with pytest.raises(ValueError, match="stored in a 'bucket', which this version does not know"):
        artefacts_from_json({"kind": "bucket", "url": "s3://logs"})


def test_a_log(artefacts):
    log = artefacts.worker_log(1)
    assert (log.end(), log.read(0)) == (0, "")
    for line in (b"first\n", b"second\n"):
        with log.append() as file:
            file.write(line)
    assert log.end() == 13 and log.read(6) == "second\n"
    assert str(log) == f"{artefacts}/worker-1.log"
    with log.append() as file:
        file.write(b"x" * (LOG_TAIL + 10))
    assert log.read(0) == "x" * LOG_TAIL


def test_checkpoints_of_children(artefacts):
    assert artefacts.with_checkpoints() == set()
    for number in (3, 33, 7):
        artefacts.checkpoint(number, "it").save(ARRAYS, {"epoch": 1})
    artefacts.checkpoint(3, "it").save(ARRAYS, {"epoch": 2})
    artefacts.checkpoint(5, "it", training="train-abc-0").save(ARRAYS, {})
    assert artefacts.with_checkpoints() == {3, 7, 33}
    artefacts.drop_checkpoints([3, 5])
    assert artefacts.with_checkpoints() == {7, 33}
    assert artefacts.checkpoint(3, "it").load() is None
    assert artefacts.checkpoint(5, "it", training="train-abc-0").load() is not None


def test_all_is_deleted_but_what_is_not_ours(artefacts):
    artefacts.checkpoint(3, "it").save(ARRAYS, {})
    artefacts.worker_log(0).append().close()
    (artefacts.folder / "notes.txt").write_text("mine")
    artefacts.delete()
    assert [path.name for path in artefacts.folder.iterdir()] == ["notes.txt"]
    (artefacts.folder / "notes.txt").unlink()
    artefacts.worker_log(0).append().close()
    artefacts.delete()
    assert not artefacts.folder.exists()


@pytest.mark.parametrize("linked", ["mine", "mine/checkpoints", "mine/worker-0.log"])
def test_links_are_not_followed(artefacts, tmp_path, linked):
    victim = tmp_path / "victim"
    (victim / "checkpoints").mkdir(parents=True)
    for name in ("child-3.checkpoint", "checkpoints/child-3.checkpoint", "worker-0.log"):
        (victim / name).write_bytes(b"precious")
    place = artefacts.folder.parent / linked
    place.parent.mkdir(parents=True)
    os.symlink(victim / "worker-0.log" if linked.endswith("log") else victim, place)
    if "checkpoints" not in linked:
        with pytest.raises(StoreError, match="cannot be written: it is, or lies behind, a link"):
            artefacts.worker_log(0).append()
        assert artefacts.worker_log(0).read(0) == ""
    artefacts.checkpoint(3, "it").save(ARRAYS, {})
    artefacts.drop_checkpoints([3])
    artefacts.delete()
    assert all(file.read_bytes() == b"precious" for file in victim.rglob("*.*"))
    assert len(list(victim.rglob("*.*"))) == 3
