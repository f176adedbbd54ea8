"""The options of a search: how they are declared, read, checked, stored and documented.

Open `schema.py` first: it declares each option once. `option.py` defines a declaration, `parsing.py` and
`toml_file.py` read texts and files, `stored.py` makes the settings that are stored with a search, `stored_form.py`
checks those of a store, `checks.py` refuses options without effect, and `reference.py` writes docs/settings.md.
"""
