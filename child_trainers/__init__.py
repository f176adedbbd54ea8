"""Child trainers: tasks, data sets, training loops, and the workers and pools that run them."""
