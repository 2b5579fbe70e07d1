"""`Program.trace`: which arguments are known, and the way to the graph.

Owns: the choice between reading a program's source, which runs nothing, and watching a run.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .graph import Graph
from .reading import read_function


def traced(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    unrolls: bool = False,
) -> Graph:
    """The graph of the function with these arguments, as far as they are given.

    Raises TypeError where they do not fit the function.
    """
    signature = inspect.signature(function)
    try:
        given = signature.bind_partial(None, *args, **kwargs).arguments
    except TypeError as error:
        name = getattr(function, "__name__", "program")
        raise TypeError(f"{name}: {error}") from None
    return read_function(function, dict(list(given.items())[1:]), unrolls=unrolls)
