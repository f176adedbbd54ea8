"""Listeners receive the events of a running search (`base.SearchListener` is the contract). Open `base.py` first."""
