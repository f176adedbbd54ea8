"""Settings of all tests."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# A shell without job control starts background commands with Ctrl-C ignored, which every process under test would
# inherit: the tests of Ctrl-C must not depend on how they were started.
signal.signal(signal.SIGINT, signal.default_int_handler)
# `nohup` does the same with SIGHUP.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# `pytest --hypothesis-profile thorough tests/fuzz` tries ten thousand inputs.
settings.register_profile("thorough", max_examples=1000)

# TensorFlow keeps the number of threads that it first used in a process: all tests of a process have the default of
# `automl search`, whichever of them comes first. They have its oneDNN, too, without which grouped convolutions have no
# gradient on a processor.
os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", TF_ENABLE_ONEDNN_OPTS="1")
