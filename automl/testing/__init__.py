"""Contract suites for your own controllers (`controllers.py`) and spaces (`spaces.py`). Subclass one in a pytest file.

Neither module imports pytest.
"""
