"""Child trainers: tasks, data sets, training loops, and the workers and pools that run them.

Open `task.py` first: `Task` is the contract between a search and what it trains. `registry.py` lists the tasks by name.
"""
