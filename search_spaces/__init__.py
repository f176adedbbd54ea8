"""Search spaces: what can be sampled, and how a sample becomes a model.

Open `space.py` first: `Space` is what a search uses. `spec.py` has the contract of the specs that a space returns. A
new space is a generator function and its presets, with a line in each of the tables below.
"""

SPACES = {  # resolved on use, so that listing them imports nothing heavy
    "convnet": "automl.search_spaces.convnet.space:convnet",
    "recurrent-cell": "automl.search_spaces.recurrent_cell.space:recurrent_cell",
    "update-rule": "automl.search_spaces.update_rule.space:update_rule",
    "joint": "automl.search_spaces.joint.space:joint",
    "table-row": "automl.search_spaces.table_row.space:table_row",
    "landscape": "automl.search_spaces.landscape.space:landscape",
}

PRESETS = {  # named keyword arguments of each space; the first is the default
    "convnet": "automl.search_spaces.convnet.space:PRESETS",
    "recurrent-cell": "automl.search_spaces.recurrent_cell.space:PRESETS",
    "update-rule": "automl.search_spaces.update_rule.space:PRESETS",
    "joint": "automl.search_spaces.joint.space:PRESETS",
    "table-row": "automl.search_spaces.table_row.space:PRESETS",
    "landscape": "automl.search_spaces.landscape.space:PRESETS",
}

SCHEDULES = {  # named schedules of each space: functions from a child's number to forced option values
    "convnet": "automl.search_spaces.convnet.space:SCHEDULES",
    "recurrent-cell": "automl.search_spaces.recurrent_cell.space:SCHEDULES",
    "update-rule": "automl.search_spaces.update_rule.space:SCHEDULES",
    "joint": "automl.search_spaces.joint.space:SCHEDULES",
    "table-row": "automl.search_spaces.table_row.space:SCHEDULES",
    "landscape": "automl.search_spaces.landscape.space:SCHEDULES",
}

READERS = {  # for each space, a function from the JSON value in the store to the spec
    "convnet": "automl.search_spaces.convnet.spec:ConvNet.from_json",
    "recurrent-cell": "automl.search_spaces.recurrent_cell.spec:RecurrentCell.from_json",
    "update-rule": "automl.search_spaces.update_rule.spec:UpdateRule.from_json",
    "joint": "automl.search_spaces.joint.spec:from_json",
    "table-row": "automl.search_spaces.table_row.space:Row.from_json",
    "landscape": "automl.search_spaces.landscape.space:Point.from_json",
}

DEFAULT_SPACE = next(iter(SPACES))
