"""Whether a value that is at hand is of a type, for readers who say what they expect.

Owns: that check. Changes no value.
"""

from typing import Any

from .decoder import adapter_of, name_of


def expect(value: Any, wanted: object, what: str) -> None:
    """Raises TypeError, naming `what`, unless `value` is a `wanted`."""
    if not _is_one(value, wanted):
        raise TypeError(f"{what} is {_brief(value)}, no {name_of(wanted)}")


def _is_one(value: Any, wanted: object) -> bool:
    if isinstance(wanted, type):
        try:
            return isinstance(value, wanted)
        except TypeError:  # a TypedDict, a protocol
            pass
    try:
        adapter_of(wanted).validate_python(value, strict=True)
    except ValueError:
        return False
    return True


def _brief(value: Any) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 100 else text[:100] + "…"
