"""A type, ready for use: what its texts look like, and what value a text stands for.

Owns: the decoders of types, and the errors of both ways. Knows no schema keyword.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, NewType, get_args, get_origin

from ...runtime.errors import InvalidRequest, SapwoodError
from ...runtime.protocol import Constraint, FinishKind, FinishReason

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_SHOWN_CHARS = 80


class DecodeError(SapwoodError):
    """A generated text is no value of the type asked for; `__cause__` says why, if anything does.

    `type_name`: the type; `text`: all that was generated; `finish`: "length" where `max_tokens` cut
    it, else "stop".
    """

    def __init__(self, message: str, *, type_name: str, text: str, finish: str) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.text = text
        self.finish = finish


@dataclass(frozen=True)
class Decoder:
    """`constraint` None: any text. `stops`: stop strings besides the program's."""

    name: str
    constraint: Constraint | None
    stops: tuple[str, ...]
    read: Callable[[str], Any] = field(repr=False)  # raises ValueError

    def decode(self, text: str, finish: FinishReason) -> Any:
        """The value that `text` stands for; raises DecodeError. What a budget cut is no value, for
        nobody can tell what it would have become; free text is whole wherever it ends."""
        if self.constraint is None:
            return self._read(text, finish)
        if finish.kind is FinishKind.LENGTH:
            raise self._error("max_tokens cut it", text, finish)
        return self._read(text, finish)

    def _read(self, text: str, finish: FinishReason) -> Any:
        try:
            return self.read(text)
        except Exception as error:  # validators of the user's raise what they like
            raise self._error(f"{type(error).__name__}: {error}", text, finish) from error

    def _error(self, why: str, text: str, finish: FinishReason) -> DecodeError:
        shown = text if len(text) <= _SHOWN_CHARS else "…" + text[-_SHOWN_CHARS:]
        return DecodeError(
            f"the text is no {self.name}: {why}; it ends with {shown!r}",
            type_name=self.name,
            text=text,
            finish=finish.kind.value,
        )


def decoder_of(wanted: object) -> Decoder:
    """Raises InvalidRequest, naming the type and the part of it that cannot be honoured."""
    written = _written(wanted)
    try:
        hash(written)
    except TypeError:
        return _made(wanted)
    return _cached(wanted, written)


def _written(wanted: object) -> tuple[object, ...]:
    """Different for `A | B` and `B | A`, which are equal, though a text that fits both is read as
    the first."""
    return (wanted, *map(_written, get_args(wanted)))


@lru_cache(maxsize=256)
def _cached(wanted: object, written: tuple[object, ...]) -> Decoder:
    return _made(wanted)


def name_of(wanted: object) -> str:
    """As messages say it: without where it is defined, and without annotations."""
    if isinstance(wanted, type) and not get_args(wanted):
        return wanted.__qualname__
    if get_origin(wanted) is Annotated:
        return f"Annotated[{name_of(get_args(wanted)[0])}, ...]"
    return wanted.__name__ if isinstance(wanted, NewType) else str(wanted).replace("typing.", "")


def adapter_of(wanted: object) -> "TypeAdapter[Any]":
    """Raises InvalidRequest where pydantic knows no way to read such a value."""
    from pydantic import TypeAdapter

    from .typed_dicts import modern

    if isinstance(wanted, str):
        raise InvalidRequest(f"type: {wanted!r} is a text: give the type itself", field="type")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(modern(wanted))
        adapter.rebuild()  # what it refers to is looked for now, not at first use
        return adapter
    except Exception as error:  # a type brings code of its own
        reason = " ".join(str(error).splitlines()[:4])
        raise InvalidRequest(f"type: {name_of(wanted)}: {reason}", field="type") from error


def _made(wanted: object) -> Decoder:
    if wanted is str:
        return Decoder("str", None, (), str)
    from .bare import form_of
    from .paths import path_of
    from .schemas import Refusal, TypeSchemas

    adapter = adapter_of(wanted)
    name, core = name_of(wanted), adapter.core_schema
    try:
        schema = adapter.json_schema(schema_generator=TypeSchemas)
        form = form_of(schema, decimal=core["type"] == "decimal")
    except Refusal as error:
        where = f"{name}{path_of(core, error.schema)}"
        raise InvalidRequest(f"type: {where}: {error}", field="type") from error
    except Exception as error:  # what cannot be compiled, and what a type's own code raises
        raise InvalidRequest(f"type: {name}: {error}", field="type") from error
    _try(name, form.constraint)
    read = adapter.validate_json if form.quoted else lambda text: adapter.validate_json(_json(text))
    return Decoder(name, form.constraint, form.stops, read)


def _try(name: str, constraint: Constraint | None) -> None:
    from ...runtime.constraint_facts import constraint_facts

    fault = None if constraint is None else constraint_facts(constraint).fault
    if fault is not None:
        raise InvalidRequest(f"type: {name}: {fault.message}", field="type")


def _json(text: str) -> str:
    return json.dumps(text)
