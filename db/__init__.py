"""The store: searches, children, controller steps and weights in SQL.

Open `store.py` first: `Store` is the only interface to the database. `records.py` has the records that it returns,
`schema.py` the tables, and `migrations/` the upgrades of stores of earlier releases.
"""
