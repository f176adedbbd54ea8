"""The code that all exported Python files share."""

from __future__ import annotations

# An environment variable is not enough, because TensorFlow prints its first lines before it reads it.
QUIET_START = """\
import os

if __name__ == "__main__":  # as a script: hides what TensorFlow logs on import; exceptions are shown
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        import keras

        keras.ops.zeros(1)  # the first operation prints, too
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nothing)
"""
