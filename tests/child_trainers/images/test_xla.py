"""XLA is used on a GPU only, and only where a training is long enough to repay the compilation."""

import pytest

from automl.child_trainers.devices import Compute
from automl.child_trainers.images import task as image_task
from automl.child_trainers.images.task import ImageClassification
from automl.child_trainers.images.xla import pays
from automl.child_trainers.recipes import Recipe
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.spec import ConvNet


def network(layers, filters):
    return ConvNet(tuple(ConvLayer(3, 3, filters, (index - 1,) if index else ()) for index in range(layers)))


def task(xla=None, *, devices=1, epochs=50):
    return ImageClassification("digits", Recipe(epochs=epochs), compute=Compute("bfloat16", xla, devices))


def test_it_must_save_more_than_twice_the_time_to_compile():
    # 3 x 1e9 FLOPs an image: 1.128e-4 s without XLA, 0.332e-4 s with it; 20 s are saved after 251,000 images.
    assert not pays(10**9, 250_000)
    assert pays(10**9, 252_000)


@pytest.mark.parametrize(
    ("net", "epochs", "expected"),
    [(network(2, 8), 5, False), (network(20, 48), 5, False), (network(20, 48), 10**5, True)],
)
def test_each_child_by_its_expected_length(monkeypatch, net, epochs, expected):
    asked = task(epochs=epochs)
    assert asked._compute_of(net) == Compute("bfloat16", False)  # there is no GPU
    monkeypatch.setattr(image_task, "trains_on_gpu", lambda: True)
    assert asked._compute_of(net) == Compute("bfloat16", expected)
    assert asked._compute_of({"size": "not known"}) == Compute("bfloat16", False)


def test_what_was_asked_for_is_kept(monkeypatch):
    monkeypatch.setattr(image_task, "trains_on_gpu", lambda: True)
    for xla in (True, False):
        assert task(xla, epochs=10**5)._compute_of(network(20, 48)).xla is xla
    assert task(devices=2, epochs=10**5)._compute_of(network(20, 48)).xla is False  # XLA compiles for one device
