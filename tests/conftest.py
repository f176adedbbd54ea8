"""Settings of all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# A shell without job control starts background commands with Ctrl-C ignored, which every process under test would
# inherit: the tests of Ctrl-C must not depend on how they were started.
signal.signal(signal.SIGINT, signal.default_int_handler)
# `nohup` does the same with SIGHUP.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# `pytest --hypothesis-profile thorough tests/fuzz` tries ten thousand inputs.
settings.register_profile("thorough", max_examples=1000)
