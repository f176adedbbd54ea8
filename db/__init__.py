"""The store: searches, children, controller steps and weights in SQL.

Open `store.py` first: `Store` is the only interface to the database. `records.py` has what it returns, `schema.py` the
tables, `migrations/` how stores of earlier releases get them.
"""
