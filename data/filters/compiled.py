"""Compiles the loops of the filters to machine code with numba, once per machine.

numba keeps compiled code beside the source (or in the user's cache folder where that cannot be
written) and drops it when that one file changes. A kernel here also freezes constants and calls helpers
of its neighbours, so its name carries a digest of the whole folder: edit any file and all are compiled anew.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from seedbed.errors import DataError

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """`function`, compiled at its first call for the types of its arguments.

    Raises DataError where numba is missing.
    """
    try:
        from numba import njit
    except ImportError:
        raise DataError(
            "the quality filters of data.filters need numba, which is not installed",
            "pip install 'seedbed[filters]', or set data.filters to an empty list",
        ) from None
    function.__qualname__ += "_" + _sources_digest()
    return cast(Function, njit(cache=True, nogil=True, error_model="numpy")(function))


@functools.cache
def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
