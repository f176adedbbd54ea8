"""The rewards of synthetic landscapes: functions in `functions.py`, and the task in `task.py`."""
