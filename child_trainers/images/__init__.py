"""Image classification: the task, its training loop, networks and standardization. Open `task.py` first."""
