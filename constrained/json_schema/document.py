"""A schema document: its subschemas by place, its references; knows what no keyword means.

A `Place` is one subschema; all its keywords stand beside each other there, but for older drafts, in
which `$ref` stands alone. References lead within the document only.
"""

import math
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn

from ..errors import GrammarError, Unsupported
from .values import brief, escape

_DRAFTS: Final = {"draft-03": 4, "draft-04": 4, "draft-06": 6, "draft-07": 7, "2019-09": 2019}
_LATEST: Final = 2020
_SINCE: Final = {
    **dict.fromkeys(("const", "contains", "propertyNames"), 6),
    **dict.fromkeys(("if", "then", "else"), 7),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "minContains", "maxContains"), 2019),
    **dict.fromkeys(("unevaluatedItems", "unevaluatedProperties", "$recursiveRef"), 2019),
    **dict.fromkeys(("prefixItems", "$dynamicRef"), 2020),
}
"""The draft from which on a keyword says something; before, it is an annotation."""
# Keywords that hold data, not schemas: an "$id" or "$anchor" within them names nothing.
_DATA: Final = frozenset(("const", "enum", "default", "examples", "example"))


class Place:
    """One subschema. pointer: its place, as a URI fragment; base: what its URIs start from."""

    __slots__ = ("base", "number", "pointer", "schema")

    def __init__(self, schema: object, pointer: str, base: str, number: int) -> None:
        self.schema = schema
        self.pointer = pointer
        self.base = base
        self.number = number

    def refuse(self, keyword: str, why: str) -> NoReturn:
        """Raises Unsupported with the JSON pointer of the keyword."""
        raise Unsupported(f"{self.pointer}/{escape(keyword)}: {why}")

    def wrong(self, keyword: str, why: str) -> NoReturn:
        """Raises GrammarError with the JSON pointer of the keyword."""
        raise GrammarError(f"{self.pointer}/{escape(keyword)}: {why}")


class Document:
    """The places of one schema document, found on demand; equal places are one object."""

    def __init__(self, root: object) -> None:
        self._places: dict[int, Place] = {}  # by the identity of the schema, which the root keeps
        self._root = root
        self._resources: dict[str, object] | None = None
        self._anchors: dict[tuple[str, str], tuple[object, str]] = {}
        self._dynamic: dict[str, int] = {}  # how many schemas have a dynamic anchor ("": recursive)
        self.draft: Final = _draft(root)
        self.ref_stands_alone: Final = self.draft <= 7
        self.root: Final = self._make(root, "#", _identifier(root, ""))

    def below(self, place: Place, *path: str | int) -> Place:
        """The subschema at `path` from a place."""
        node = place.schema
        for part in path:
            node = node[part]  # type: ignore[index]
        if (known := self._places.get(id(node))) is not None:
            return known
        pointer = "/".join([place.pointer, *(escape(str(part)) for part in path)])
        return self._make(node, pointer, _identifier(node, place.base))

    def resolve(self, place: Place, keyword: str) -> Place:
        """What the reference under `keyword` leads to."""
        assert isinstance(place.schema, dict)
        reference = place.schema[keyword]
        if not isinstance(reference, str):
            place.wrong(keyword, f"{brief(reference)} is not a reference")
        if keyword != "$ref" and self._is_ambiguous(keyword, reference):
            place.refuse(keyword, "it is not supported where several schemas may be meant")
        address, _, fragment = _join(place.base, reference).partition("#")
        if "#" not in reference and reference == "":
            address = place.base
        try:
            fragment = urllib.parse.unquote(fragment, errors="strict")
        except UnicodeDecodeError:
            place.wrong(keyword, f"{brief(reference)} is not percent-encoded UTF-8")
        resource = self._resource(address)
        if resource is None:
            place.refuse(
                keyword, f"only references within the schema are supported, not {brief(reference)}"
            )
        schema, pointer = resource
        if not fragment:
            return self._make(schema, pointer, address)
        if not fragment.startswith("/"):
            self._find_names()
            if (address, fragment) not in self._anchors:
                place.wrong(keyword, f"there is no {brief(reference)}")
            found, pointer = self._anchors[address, fragment]
            return self._make(found, pointer, address)
        return self._follow(place, keyword, schema, pointer, address, fragment)

    def _is_ambiguous(self, keyword: str, reference: str) -> bool:
        """Whether what a dynamic reference means may depend on the way to it."""
        self._find_names()
        name = "" if keyword == "$recursiveRef" else reference.rpartition("#")[2]
        return self._dynamic.get(name, 0) > 1

    def _follow(
        self, place: Place, keyword: str, node: object, pointer: str, base: str, path: str
    ) -> Place:
        for part in path.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and key in node:
                node = node[key]
            elif isinstance(node, list) and _index(key) < len(node):
                node = node[int(key)]
            else:
                place.wrong(keyword, f"there is no {brief('#' + path)}")
            base = _identifier(node, base)
            pointer = f"{pointer}/{escape(key)}"
        return self._make(node, pointer, base)

    def _resource(self, address: str) -> tuple[object, str] | None:
        if address == self.root.base or not address:
            return self._root, "#"
        self._find_names()
        assert self._resources is not None
        found = self._resources.get(address)
        return None if found is None else (found, "#")

    def _find_names(self) -> None:
        """Embedded resources and anchors, the first of each name."""
        if self._resources is not None:
            return
        self._resources = {}
        for node, pointer, base in _subschemas(self._root, "#", ""):
            if isinstance(node.get("$id") or node.get("id"), str):
                self._resources.setdefault(base, node)
            for keyword in ("$anchor", "$dynamicAnchor"):
                if isinstance(name := node.get(keyword), str):
                    self._anchors.setdefault((base, name), (node, pointer))
            dynamic = "" if node.get("$recursiveAnchor") is True else node.get("$dynamicAnchor")
            if isinstance(dynamic, str):
                self._dynamic[dynamic] = self._dynamic.get(dynamic, 0) + 1
            identifier = node.get("$id") or node.get("id")
            if isinstance(identifier, str) and identifier.startswith("#"):
                self._anchors.setdefault((base, identifier[1:]), (node, pointer))

    def _make(self, schema: object, pointer: str, base: str) -> Place:
        if not isinstance(schema, dict):
            # True, False and what is no schema at all: nothing to tell apart but the value.
            return Place(schema, pointer, base, -1 if schema is True else -2)
        place = self._places.get(id(schema))
        if place is None:
            known = schema
            if self.draft < _LATEST:
                known = {key: schema[key] for key in schema if _SINCE.get(key, 0) <= self.draft}
            place = self._places[id(schema)] = Place(known, pointer, base, len(self._places))
        return place


def _identifier(node: object, base: str) -> str:
    identifier = None
    if isinstance(node, dict):
        identifier = node.get("$id") or node.get("id")
    if not isinstance(identifier, str) or identifier.startswith("#"):
        return base
    return _join(base, identifier).partition("#")[0]


def _join(base: str, reference: str) -> str:
    try:
        return urllib.parse.urljoin(base, reference)
    except ValueError as error:
        raise GrammarError(f"{brief(reference)} is not a URI: {error}") from error


def _index(key: str) -> float:
    return int(key) if key.isdecimal() and len(key) < 10 else math.inf


def _subschemas(
    node: object, pointer: str, base: str
) -> Iterator[tuple[Mapping[str, object], str, str]]:
    """Every object of the document that may be a schema, with its pointer and base."""
    stack = [(node, pointer, base)]
    while stack:
        node, pointer, base = stack.pop()
        if isinstance(node, dict):
            base = _identifier(node, base)
            yield node, pointer, base
            stack += [
                (value, f"{pointer}/{escape(key)}", base)
                for key, value in node.items()
                if key not in _DATA
            ]
        elif isinstance(node, list):
            stack += [(value, f"{pointer}/{i}", base) for i, value in enumerate(node)]


def _draft(root: object) -> int:
    says = root.get("$schema") if isinstance(root, dict) else None
    if isinstance(says, str):
        for name, draft in _DRAFTS.items():
            if name in says:
                return draft
    return _LATEST
