"""Sentences about unknown names list the known ones, nearest first."""

import pytest

from automl.search_spaces.names import UnknownNameError, nearest_first, validate_choice


def test_the_message_about_an_unknown_name_lists_the_known_ones():
    assert validate_choice("space", "convnet", {"convnet": 1}) == "convnet"
    with pytest.raises(UnknownNameError) as caught:
        validate_choice("fruit", "pears", ["fig", "pear", "peach"])
    assert str(caught.value) == "There is no fruit called 'pears'; there is pear, peach, fig."
    assert (caught.value.what, caught.value.name) == ("fruit", "pears")
    with pytest.raises(ValueError, match=r"There is no fruit called 'fig'; there is none\."):
        validate_choice("fruit", "fig", [])


def test_long_lists_are_cut():
    names = [f"layer{index}/width" for index in range(12)]
    assert nearest_first("layer7/widht", names).startswith("layer7/width, ")
    assert nearest_first("layer7/widht", names).endswith(" and 4 more")


def test_case_dashes_and_spaces_break_ties():
    assert nearest_first("batchSize", ["batches", "batch_size"]) == "batch_size, batches"
