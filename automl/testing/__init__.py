"""Contract suites for your own controllers (`controllers.py`) and spaces (`spaces.py`): subclass one in a pytest file.

Neither module imports pytest.
"""
