"""`typing.TypedDict` on Python 3.11, which keeps too little for pydantic, in today's terms.

Owns: that translation, through containers and unions. Knows no schema.
"""

import sys
import typing
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, Final

import typing_extensions

_MARKS: Final[tuple[object, ...]] = (typing_extensions.Required, typing_extensions.NotRequired)


def modern(wanted: Any) -> Any:
    """The same type, where `typing.TypedDict`s stand that pydantic refuses; else `wanted` itself.

    One within a dataclass or a model stays: only its own module can change that.
    """
    if sys.version_info >= (3, 12):
        return wanted
    if typing.is_typeddict(wanted) and type(wanted).__module__ == "typing":
        return _modern_dict(wanted)
    arguments = typing.get_args(wanted)
    origin = typing.get_origin(wanted)
    if origin is typing.Literal or not arguments:
        return wanted
    if origin is typing.Annotated:
        return typing.Annotated[(modern(arguments[0]), *wanted.__metadata__)]
    changed = tuple(modern(argument) for argument in arguments)
    if all(new is old for new, old in zip(changed, arguments, strict=True)):
        return wanted
    if origin is UnionType:
        return reduce(or_, changed)
    return wanted.copy_with(changed) if hasattr(wanted, "copy_with") else origin[changed]


def _modern_dict(wanted: Any) -> Any:
    hints = typing_extensions.get_type_hints(wanted, include_extras=True)
    required = wanted.__required_keys__
    fields = {}
    for name, hint in hints.items():
        while typing.get_origin(hint) in _MARKS:
            (hint,) = typing.get_args(hint)
        mark = typing_extensions.Required if name in required else typing_extensions.NotRequired
        fields[name] = mark[modern(hint)]
    make: Any = typing_extensions.TypedDict  # mypy wants its arguments written out
    made = make(wanted.__name__, fields)
    made.__doc__, made.__module__ = wanted.__doc__, wanted.__module__
    return made
