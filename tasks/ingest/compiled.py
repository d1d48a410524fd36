"""Loops that numba compiles: the numbers of their numpy versions, several times as fast.

The extra [corpus] brings numba. Loading it takes each process a second or two, so a loop is asked for only where there
is enough to do.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

_HAS_NUMBA = find_spec("numba") is not None


class Load:
    """How much one process has done by the slow way, and whether from now on the fast one is worth its loading."""

    def __init__(self, enough: int):
        self._enough = enough  # symbols on which the slow way loses as much as loading the fast one takes
        self._seen = 0

    def pays(self, symbols: int) -> bool:
        """Whether these symbols, after all before, are for the compiled loop."""
        self._seen += symbols
        return _HAS_NUMBA and self._seen > self._enough


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as numba compiles it; the code is kept beside its module."""
    import numba

    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep the code (a read-only system without a home): compiled in each process
        return numba.njit(nogil=True)(function)
