"""The rewards of synthetic landscapes: the functions, and the task that evaluates them."""
