"""Compares controllers at equal budgets over many seeds; open `bench.py` first."""
