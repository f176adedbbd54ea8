"""Processes that train children, and the pools that start, watch and end them. Open `pool.py` first."""
