"""Tables of choices and scores: how they are read, and the task that looks scores up."""
