"""Searches on machines with GPUs, which are faked: how many workers share one, and what is refused."""

from __future__ import annotations

import contextlib
import types

import pytest
from command_line import OURS
from fake_gpus import H200, T4, faked_gpus

import automl as api
from automl import worker_plan
from automl.child_trainers.gpu_sharing import CONTEXT_MB
from automl.child_trainers.gpus import Gpu
from automl.child_trainers.task import Requirements
from automl.child_trainers.workers.pool import Pool, PoolError
from automl.db.records import Fault
from automl.settings.schema import SearchConfig
from automl.settings.stored import completed
from automl.worker_plan import plan_workers, sharing_workers

DIGITS = {"task": "digits", "controller": "random", "fix": ["depth=3"], "set": ["task.num_train=320"], "children": 2}
AUTO = "is not known what a child of the task mine.py:evaluate needs of a GPU"


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """A machine of sixteen cores and 128 GB, whose GPUs a test installs."""
    monkeypatch.setattr(worker_plan, "num_cores", lambda: 16)
    monkeypatch.setattr(worker_plan, "memory_share", lambda workers: 115 * 2**30)
    yield from faked_gpus(tmp_path / "programs", monkeypatch)


@pytest.fixture
def setups():
    """Keeps what pools of searches were made from; such a pool pauses its search at once."""
    made = []

    class PausingPool(Pool):
        def __init__(self, setup):
            made.append(setup)

        def tend(self):
            raise PoolError("enough")

        def wait(self, seconds):
            pass

        def wake(self):
            pass

        def close(self):
            pass

    made_by = types.SimpleNamespace(pool=PausingPool, made=made)
    return made_by


# The plan


def task(devices=1, exclusive=False, population=1, uses_tensorflow=True):
    return types.SimpleNamespace(
        requirements=Requirements(devices, exclusive), population=population, uses_tensorflow=uses_tensorflow
    )


@pytest.mark.parametrize(
    ("options", "wanted", "plan"),
    [
        ({}, {}, (14, 7, "as many as 16 cores allow for 2 GPUs")),
        ({"threads": 2}, {}, (6, 3, "as many as 16 cores allow for 2 GPUs")),
        ({"workers_per_gpu": 4}, {}, (8, 4, None)),
        ({"workers_per_gpu": 4, "workers": 3}, {}, (3, 4, None)),
        ({"workers": 3}, {}, (3, 2, "--workers is 3")),
        ({"workers": 0}, {}, (0, 1, "--workers is 0")),
        ({"gpus_per_child": 2}, {"devices": 2}, (1, 1, "a child has 2 GPUs")),
        ({"gpus_per_child": 2, "workers": 4}, {"devices": 2}, (4, 1, "a child has 2 GPUs")),
        ({}, {"exclusive": True}, (2, 1, "a child of the task t needs a GPU to itself")),
        ({}, {"population": 4}, (2, 1, "4 children are trained side by side")),
        ({"workers_per_gpu": 2}, {"population": 4}, (4, 2, None)),
        ({}, {"uses_tensorflow": False}, (2, 1, "it is not known what a child of the task t needs of a GPU")),
    ],
)
def test_the_plan_on_two_gpus(monkeypatch, gpus, options, wanted, plan):
    monkeypatch.setattr(worker_plan, "visible_gpus", lambda: [Gpu("0", "0", memory=143_771)] * 2)
    assert plan_workers(SearchConfig(**options), "t", task(**wanted)) == plan


def test_the_plan_without_gpus(monkeypatch, gpus):
    monkeypatch.setattr(worker_plan, "visible_gpus", lambda: [])
    monkeypatch.setattr(worker_plan, "default_workers", lambda: 8)
    assert plan_workers(SearchConfig(), "t", task()) == (8, 1, None)
    assert plan_workers(SearchConfig(workers=3, workers_per_gpu=1), "t", task()) == (3, 1, None)
    assert plan_workers(SearchConfig(), "t", task(exclusive=True)) == (1, 1, None)


def test_the_memory_of_a_gpu_is_shared_by_those_that_run():
    """A number of the user's holds for fewer workers too; one that auto chose was that of another run."""
    given = {"workers_per_gpu": 4, "workers_per_gpu_reason": None}
    chosen = {"workers_per_gpu": 14, "workers_per_gpu_reason": "as many as 16 cores allow"}
    assert [sharing_workers(given, workers, 1) for workers in (0, 2, 4, 6)] == [4, 4, 4, 6]
    assert [sharing_workers(chosen, workers, groups) for workers, groups in ((14, 1), (14, 2), (2, 2), (3, 0))] == [
        14,
        7,
        1,
        1,
    ]
    assert sharing_workers(completed({**MINIMAL}), 1, 1) == 1


MINIMAL = {  # of a search of an earlier version, which had one worker a GPU
    "space": {"name": "convnet", "preset": None, "options": {}, "file": None},
    "narrowing": {"fix": [], "only": []},
    "schedule": None,
    "limits": {"params": None, "flops": None},
    "task": {"name": "digits", "recipe": None, "options": {}, "goal": None, "file": None, "data_dir": None},
    "controller": {"name": "random", "preset": None, "options": {}},
    "keep": 1,
    "stall": 1800.0,
    "child_timeout": None,
    "keep_going": False,
    "policy_device": "cpu",
}


# Searches


def test_workers_share_a_gpu_by_default(automl, gpus, setups):
    gpus([H200])
    api.search("shared", **DIGITS, pool=setups.pool)
    (setup,) = setups.made
    assert (setup.count, setup.gpus, setup.gpu_uuids) == (14, ["GPU-11aa22bb-0000"], ["GPU-11aa22bb-0000"])
    assert setup.order.gpu_memory == int(0.98 * 143_771 / 14) - CONTEXT_MB and setup.notices == []
    shown = automl("show", "shared")
    assert "  14 workers on a GPU: as many as 16 cores allow\n" in shown.out
    settings = automl("show", "shared", "--json").json["settings"]
    assert (settings["workers_per_gpu"], settings["workers_per_gpu_reason"]) == (14, "as many as 16 cores allow")
    assert settings["run"]["workers"] == 14
    assert settings["compute"]["precision"] == "bfloat16"
    # On a smaller machine, fewer of them share the memory of a GPU.
    gpus([T4])
    api.resume("shared", workers=3, pool=setups.pool)
    assert setups.made[-1].order.gpu_memory == int(0.98 * 15_360 / 3) - CONTEXT_MB
    api.resume("shared", workers=1, pool=setups.pool)
    assert setups.made[-1].order.gpu_memory is None
    assert automl("resume", "shared", "--workers", "14").error == (
        "GPU 1 (Tesla T4) has 15,360 MB of memory, too little for 14 workers, each of which needs 1,792 MB; let at "
        "most 8 share it, with --workers or --workers-per-gpu."
    )


def test_a_number_of_workers_that_share_a_gpu(automl, gpus, setups):
    gpus([H200])
    api.search("four", **DIGITS, workers_per_gpu=4, workers=1, pool=setups.pool)
    (setup,) = setups.made
    assert (setup.count, setup.order.gpu_memory) == (1, int(0.98 * 143_771 / 4) - CONTEXT_MB)
    assert "on a GPU" not in automl("show", "four").out


def test_a_gpu_in_use_gets_a_warning(gpus, setups):
    gpus([H200, T4.replace("1, GPU-33", "1, GPU-44")], used=9_000)
    api.search("second", **DIGITS, pool=setups.pool)
    first, second = setups.made[0].notices
    assert first.startswith("Other processes hold 9,000 of the 143,771 MB of GPU 0 (NVIDIA H200), on which 3 workers")
    assert second.startswith("Other processes hold 9,000 of the 15,360 MB of GPU 1 (Tesla T4), on which 3 workers")


def test_a_broken_driver_is_told(gpus, setups):
    """The search goes on without GPUs, but not silently."""
    gpus(script="echo No devices were found; exit 6")
    api.search("told", **DIGITS, pool=setups.pool)
    (setup,) = setups.made
    assert setup.gpus == [] and setup.notices == ["No GPU is used (nvidia-smi lists no GPU: No devices were found)."]
    gpus(script="exit 6", chosen="-1")  # nobody wants one
    api.search("hidden", **DIGITS, pool=setups.pool)
    assert not setups.made[-1].notices


def test_slices_are_gpus(gpus, setups):
    row = H200.replace("NVIDIA H200", "NVIDIA A100-SXM4-40GB").replace("143771", "40960").replace("9.0", "8.0")
    gpus(
        [row],
        "GPU 0: A (UUID: GPU-x)\n  MIG 2g.10gb  Device  0: (UUID: MIG-a)\n  MIG 3g.20gb  Device  1: (UUID: MIG-b)",
    )
    api.search("slices", **DIGITS, pool=setups.pool)
    (setup,) = setups.made
    assert (setup.gpus, setup.count) == (["MIG-a", "MIG-b"], 4)
    with pytest.raises(ValueError, match="--gpus-per-child is 2, but a process can use only one slice of a GPU in MIG"):
        api.search("both", **DIGITS, gpus_per_child=2)


def test_a_task_of_the_user_has_a_gpu_to_itself(automl, mine, gpus):
    gpus([H200])
    ran = automl("search", "mine", *OURS, "--children", "2")
    assert ran.code == 0 and f"1 worker on a GPU: it {AUTO}" in ran.out.replace("\n", " ")


def test_a_task_of_the_user_has_a_limit_only_if_asked(mine, gpus, setups):
    """It need not use TensorFlow, which the limit would import."""
    gpus([H200])
    own = {"space": "mine.py:space", "task": "mine.py:evaluate", "controller": "random", "pool": setups.pool}
    api.search("free", **own, workers=4)
    api.search("limited", **own, workers=4, workers_per_gpu=4)
    free, limited = setups.made
    assert free.order.gpu_memory is None
    assert limited.order.gpu_memory == int(0.98 * 143_771 / 4) - CONTEXT_MB


def test_no_gpu_to_share(automl, mine, gpus):
    gpus(script="echo No devices were found; exit 6")
    assert automl("search", "mine", *OURS, "--workers-per-gpu", "4").error == (
        "--workers-per-gpu is 4, but this process sees no GPU (automl doctor says why); drop it, or set the number of "
        "workers with --workers."
    )
    assert automl("search", "mine", *OURS, "--workers-per-gpu", "auto", "--children", "1").code == 0
    assert automl("search", "other", *OURS, "--workers-per-gpu", "few").error == (
        "--workers-per-gpu is 'few'; it must be a whole number or auto."
    )


def test_a_gpu_with_too_little_memory(automl, mine, gpus):
    gpus(["0, GPU-1, Quadro K620, 1500, 470.1, 5.0"])
    assert automl("search", "small", "--task", "digits", "--controller", "random").error == (
        "GPU 0 (Quadro K620) has 1,500 MB of memory, and a worker needs 1,792 MB; train on the processor with "
        "CUDA_VISIBLE_DEVICES=-1."
    )
    assert automl("search", "mine", *OURS, "--children", "1").code == 0  # nobody knows what it needs


def test_a_gpu_that_tensorflow_does_not_see(automl, gpus):
    """As where its CUDA libraries are not installed. No child is blamed."""
    gpus([H200])
    ran = automl("search", "unseen", "--task", "digits", "--controller", "random", "--workers", "1", "--children", "1")
    assert ran.code == 3
    told = " ".join(ran.out.split())
    assert (
        "No worker can be used: its workers lose their GPU (gpu 0: TensorFlow sees no GPU where it should see 1" in told
    )
    with contextlib.closing(api.open_store()) as store:
        search = store.search("unseen")
        children = store.children(search.id)
        assert all(child.fault in (None, Fault.NODE_LOST) and child.attempts == 0 for child in children)


def test_update_rules_are_trained_by_one_worker_on_each_gpu(gpus, setups):
    gpus([H200])
    api.search("rules", space="update-rule", task="digits", controller="random", children=4, pool=setups.pool)
    (setup,) = setups.made
    assert (setup.count, setup.order.gpu_memory) == (1, None)
    settings = setup.store.search("rules").settings
    assert settings["workers_per_gpu_reason"] == "4 children are trained side by side"
