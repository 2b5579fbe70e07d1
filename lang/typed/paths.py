"""Where in a type one of its parts stands, in the words of Python; knows nothing of schemas' sense.

Owns: the walk over a core schema by its shape alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_INSIDE: Final = {
    "items_schema": "[...]",
    "keys_schema": "[key]",
    "values_schema": "[value]",
    "extras_schema": "[extra]",
}


def path_of(root: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """Such as ".address.lines[...]"; "" for the type itself, or where it cannot be found."""
    shared = _shared(root)
    return next(_walk(root, part, "", shared, frozenset()), "")


def _shared(root: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    definitions = root.get("definitions", []) if root.get("type") == "definitions" else []
    return {schema["ref"]: schema for schema in definitions}


def _walk(
    here: object,
    part: Mapping[str, Any],
    path: str,
    shared: Mapping[str, Mapping[str, Any]],
    within: frozenset[str],
) -> Iterator[str]:
    """Every place of `part` in `here`. `within`: the definitions that lead here."""
    if here is part:
        yield path
    elif isinstance(here, Mapping):
        if here.get("type") == "definition-ref":
            name = here["schema_ref"]
            if name in shared and name not in within:
                yield from _walk(shared[name], part, path, shared, within | {name})
            return
        for key, inner in here.items():
            if key == "fields" and isinstance(inner, Mapping):
                for name, field in inner.items():
                    yield from _walk(field, part, f"{path}.{name}", shared, within)
            elif key not in ("definitions", "metadata", "serialization", "cls"):
                yield from _walk(inner, part, path + _INSIDE.get(key, ""), shared, within)
    elif isinstance(here, list | tuple):
        for inner in here:
            named = isinstance(inner, Mapping) and "name" in inner
            step = f".{inner['name']}" if named else ""
            yield from _walk(inner, part, path + step, shared, within)
