"""From a program's function and the arguments that are known of it to its graph; runs nothing."""

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
