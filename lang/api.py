"""The verbs of a program: functions that make nodes.

Owns: the signatures (SGLang's, by position and name, and a few options more at the end) and the
refusal of arguments that cannot go together.
"""

import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, Final

from ..runtime.errors import InvalidRequest
from ..runtime.protocol import Constraint, JsonSchema, Regex, dtype_constraint
from .choices import ChoicesMethod, token_length_normalized
from .nodes import Expression, Gen, Node, RoleBegin, RoleEnd, Select, sequence
from .options import seconds
from .sampling import Sampling
from .typed import decoder_of
from .variables import check_name

_PACKAGE: Final = __name__.rpartition(".")[0]
# A number's grammar lets blanks follow it; the stop cuts them, so that the value is the number.
_NUMBER_STOPS: Final = (" ", "\n")


def gen(
    name: str | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    n: int | None = None,
    stop: str | Sequence[str] | None = None,
    stop_token_ids: Sequence[int] | None = None,
    stop_regex: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
    dtype: type | str | None = None,
    choices: Sequence[str] | None = None,
    choices_method: ChoicesMethod | None = None,
    regex: str | None = None,
    json_schema: str | Mapping[str, Any] | type | JsonSchema | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    logit_bias: Mapping[int, float] | None = None,
    constraint: Constraint | None = None,
    type: object | None = None,
    timeout: float | None = None,
    heal: bool | None = None,
) -> Node:
    """Generate text and keep it as variable `name`; None stands for the run's own default.

    At most one of `dtype` (int, float, bool, str), `regex`, `json_schema` (JSON text, a dict or a
    pydantic model), `constraint` (a `Lark` grammar, say), `type` and `choices` constrains the text.
    With int and float a blank or newline ends it, and the value is the number alone. `choices` is
    `select`, and takes no sampling options.
    With `type` the value is one of that type: any that pydantic validates and whose values JSON can
    say. A value that JSON would put in quotes (str, Literals and Enums of texts, dates and times,
    UUID, Decimal) stands without them; a number ends with a blank or newline; all else is JSON,
    also what is inside. `str` is free text. What `max_tokens` cut, or a validator of the type
    refuses, is a DecodeError at access. The meta info has the text as "text".
    `heal` (on unless the run says otherwise): where the program's text ends inside a would-be
    token, the model chooses that token; the text stays as it is, only what follows it is output.
    The value is text, or a list of `n` texts, of which the first is appended to the program's.
    `timeout`: seconds after which it is aborted and reading it raises ProgramTimeout, counted from
    when it is sent to the engine, where it may first wait.
    Raises InvalidRequest, naming the argument; one that only disagrees with the run's defaults
    (`min_tokens` above their `max_new_tokens`) is refused when it is added to a state.
    """
    sampling = Sampling(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        n=n,
        stop=stop,
        stop_token_ids=stop_token_ids,
        stop_regex=stop_regex,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        repetition_penalty=repetition_penalty,
        ignore_eos=ignore_eos,
        logit_bias=logit_bias,
        seed=seed,
        return_logprob=return_logprob,
        logprob_start_len=logprob_start_len,
        top_logprobs_num=top_logprobs_num,
        return_text_in_logprobs=return_text_in_logprobs,
        heal=heal,
    )
    if name is not None:
        check_name(name)
    limit = seconds("timeout", timeout)
    constraints = {
        "dtype": dtype,
        "choices": choices,
        "regex": regex,
        "json_schema": json_schema,
        "constraint": constraint,
        "type": type,
    }
    given = [key for key, value in constraints.items() if value is not None]
    if len(given) > 1:
        raise InvalidRequest(f"{' and '.join(given)} cannot go together", field=given[1])
    if choices is not None:
        return _choose(name, choices, choices_method, sampling, limit)
    if choices_method is not None:
        raise InvalidRequest("choices_method needs choices", field="choices_method")
    decoder = None if type is None else decoder_of(type)
    added_stop: tuple[str, ...] = _NUMBER_STOPS if dtype in (int, float, "int", "float") else ()
    if decoder is not None:
        constraint, added_stop = decoder.constraint, decoder.stops
    sampling.check(added_stop)
    if constraint is not None and not isinstance(constraint, Constraint):
        raise InvalidRequest(f"constraint: {constraint!r} is no constraint", field="constraint")
    found = constraint or _constraint(dtype, regex, json_schema)
    return Gen(name, sampling, found, added_stop, decoder, limit, _caller())


def gen_int(
    name: str | None = None,
    max_tokens: int | None = None,
    n: int | None = None,
    stop: str | Sequence[str] | None = None,
    stop_token_ids: Sequence[int] | None = None,
    stop_regex: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
) -> Node:
    """`gen(..., dtype=int)`."""
    return gen(**locals(), dtype=int)


def gen_string(
    name: str | None = None,
    max_tokens: int | None = None,
    n: int | None = None,
    stop: str | Sequence[str] | None = None,
    stop_token_ids: Sequence[int] | None = None,
    stop_regex: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
) -> Node:
    """`gen(..., dtype=str)`: a text in double quotes, which are part of the value."""
    return gen(**locals(), dtype=str)


def select(
    name: str | None = None,
    choices: Sequence[str] | None = None,
    temperature: float = 0.0,
    choices_method: ChoicesMethod = token_length_normalized,
    timeout: float | None = None,
    early_stop: bool = False,
) -> Node:
    """Append the likeliest of `choices` and keep it as variable `name`.

    The choice is the likeliest one by `choices_method`, always: `temperature` must be 0, or as good
    as that. `timeout`: as in `gen`. `early_stop`: compute no more once the winner is certain; it is
    the same one, but the meta info has None for what was not computed.
    """
    if choices is None:
        raise InvalidRequest("select needs choices", field="choices")
    if name is not None:
        check_name(name)
    sampling = Sampling(temperature=temperature)
    limit = seconds("timeout", timeout)
    return _choose(name, choices, choices_method, sampling, limit, early_stop)


def _choose(
    name: str | None,
    choices: Sequence[str],
    method: ChoicesMethod | None,
    sampling: Sampling,
    timeout: float | None,
    early_stop: bool = False,
) -> Select:
    if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
        raise InvalidRequest(f"choices: {choices!r} is not a list of texts", field="choices")
    for choice in choices:
        if not isinstance(choice, str) or not choice:
            raise InvalidRequest(f"choices: {choice!r} is not a non-empty text", field="choices")
    for option, value in sampling.given().items():
        if option != "temperature" or not _is_cold(value):
            raise InvalidRequest(
                f"{option}: {value!r} has no meaning for choices, which are scored, not sampled",
                field=option,
            )
    if method is not None and not isinstance(method, ChoicesMethod):
        raise InvalidRequest(
            f"choices_method: {method!r} is not a ChoicesMethod", field="choices_method"
        )
    chosen_by = method or token_length_normalized
    if not isinstance(early_stop, bool):
        raise InvalidRequest(f"early_stop: {early_stop!r} is not true or false", field="early_stop")
    if early_stop and chosen_by.bound is None:
        raise InvalidRequest(
            f"early_stop: {chosen_by.name} has no bound, so nothing is certain before all is known",
            field="early_stop",
        )
    return Select(name, tuple(choices), chosen_by, timeout, early_stop, _caller())


def _is_cold(temperature: object) -> bool:
    """As SGLang takes it: up to 1e-5."""
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        return False
    return 0 <= temperature <= 1e-5


def _constraint(
    dtype: type | str | None,
    regex: str | None,
    json_schema: str | Mapping[str, Any] | type | JsonSchema | None,
) -> Constraint | None:
    try:
        if dtype is not None:
            return dtype_constraint(dtype)
        if json_schema is not None:
            return _schema(json_schema)
    except ValueError as error:
        field = "dtype" if dtype is not None else "json_schema"
        raise InvalidRequest(f"{field}: {error}", field=field) from error
    if regex is None:
        return None
    try:
        constraint = Regex(regex)
        constraint.check()
    except ValueError as error:
        raise InvalidRequest(f"regex: {regex!r}: {error}", field="regex") from error
    return constraint


def _schema(schema: str | Mapping[str, Any] | type | JsonSchema) -> JsonSchema:
    if isinstance(schema, JsonSchema):
        return schema
    if isinstance(schema, str | Mapping):
        return JsonSchema.of(schema)
    describe = getattr(schema, "model_json_schema", None)
    if not callable(describe):
        raise ValueError(f"{schema!r} is neither JSON text, nor a dict, nor a pydantic model")
    try:
        made: Mapping[str, Any] = describe()
    except Exception as error:  # whatever the model's own code raises
        raise ValueError(f"{schema!r} describes no JSON schema: {error}") from error
    return JsonSchema.of(made, open_objects=False)  # a model has the fields that it lists


def _caller() -> str | None:
    """The "file:line" of the nearest frame outside this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module != _PACKAGE and not module.startswith(_PACKAGE + "."):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def system(expr: Expression | None = None) -> Node:
    """A system message of this text or expression."""
    return _message("system", expr)


def user(expr: Expression | None = None) -> Node:
    """A user message of this text or expression."""
    return _message("user", expr)


def assistant(expr: Expression | None = None) -> Node:
    """An assistant message of this text or expression."""
    return _message("assistant", expr)


def _message(role: str, expr: Expression | None) -> Node:
    if expr is None:
        return sequence(RoleBegin(role), RoleEnd(role))
    if not isinstance(expr, str | Node):
        raise TypeError(f"{role}(): {expr!r} is neither text nor an expression")
    return sequence(RoleBegin(role), expr, RoleEnd(role))


def system_begin() -> Node:
    return RoleBegin("system")


def system_end() -> Node:
    return RoleEnd("system")


def user_begin() -> Node:
    return RoleBegin("user")


def user_end() -> Node:
    return RoleEnd("user")


def assistant_begin() -> Node:
    return RoleBegin("assistant")


def assistant_end() -> Node:
    return RoleEnd("assistant")
