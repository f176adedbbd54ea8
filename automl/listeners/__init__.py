"""What is told of a running search, event by event (`base.SearchListener` is the contract). Open `base.py` first."""
