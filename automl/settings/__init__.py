"""What a search can be asked for, how it is stored and what may change. Open `schema.py` first."""
