"""Search spaces: what can be sampled, and how a sample becomes a model.

Open `space.py` first: `Space` is what a search uses. `spec.py` has the contract of what a space returns. A new space is
a generator function and its presets, with a line in each of the tables below.
"""

SPACES = {  # resolved on use, so that listing them imports nothing heavy
    "convnet": "automl.search_spaces.convnet.space:convnet",
    "recurrent-cell": "automl.search_spaces.recurrent_cell.space:recurrent_cell",
    "update-rule": "automl.search_spaces.update_rule.space:update_rule",
    "joint": "automl.search_spaces.joint.space:joint",
}

PRESETS = {  # of each space: names of keyword arguments for it; the first is the default
    "convnet": "automl.search_spaces.convnet.space:PRESETS",
    "recurrent-cell": "automl.search_spaces.recurrent_cell.space:PRESETS",
    "update-rule": "automl.search_spaces.update_rule.space:PRESETS",
    "joint": "automl.search_spaces.joint.space:PRESETS",
}

SCHEDULES = {  # of each space: option values forced by a child's number
    "convnet": "automl.search_spaces.convnet.space:SCHEDULES",
    "recurrent-cell": "automl.search_spaces.recurrent_cell.space:SCHEDULES",
    "update-rule": "automl.search_spaces.update_rule.space:SCHEDULES",
    "joint": "automl.search_spaces.joint.space:SCHEDULES",
}

READERS = {  # of each space: makes its spec of the JSON value that a store keeps
    "convnet": "automl.search_spaces.convnet.spec:ConvNet.from_json",
    "recurrent-cell": "automl.search_spaces.recurrent_cell.spec:RecurrentCell.from_json",
    "update-rule": "automl.search_spaces.update_rule.spec:UpdateRule.from_json",
    "joint": "automl.search_spaces.joint.spec:from_json",
}

DEFAULT_SPACE = next(iter(SPACES))
