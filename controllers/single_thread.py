"""Runs matrix products in one thread.

Small products gain nothing from more threads, and the workers need the cores. The last bits of a product also depend on
the number of threads, which differs between searches with and without workers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import threadpoolctl

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def single_threaded(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Limits BLAS to one thread while the function runs. Import the libraries that it uses before the first call."""

    @functools.wraps(function)
    def limited(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        with _threadpools().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


@functools.cache
def _threadpools() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()
