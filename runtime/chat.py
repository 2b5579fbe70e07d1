"""Conversations as text, by the model's own chat template.

Owns: rendering a Jinja template as `transformers` does, cutting a rendered conversation into
template text and message text, and the text that begins and ends one role while a conversation
grows. Knows no tokenizer and no request.

How the parts are found: every message's content is replaced by a sentinel, the template is
rendered, and the text around the sentinels is the template's. So message text can never pass for
template text.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, NoReturn

from .errors import InvalidRequest
from .protocol import Prompt, Text

Message = Mapping[str, Any]

_SENTINEL = re.compile("\ue000(\\d{1,9})\ue001")
_PLAIN_PREFIX = {"system": "SYSTEM:", "user": "USER:", "assistant": "ASSISTANT:"}
_MAX_CACHED_TURNS = 4096


class ChatTemplateError(InvalidRequest):
    """The chat template refused the conversation, or cannot be used the way that was asked for."""


class NoChatTemplate(ChatTemplateError):
    """The model has no chat template, so messages cannot be rendered."""


class ChatFormat:
    """One chat template with the special tokens that it names. Immutable but for a cache; safe from
    any thread.

    `template` None: `render` and `parts` raise NoChatTemplate, while `begin` and `end` fall back to
    plain lines, "SYSTEM:...\\nUSER:...\\nASSISTANT:...\\n". `name` is what error messages call the
    model.
    """

    def __init__(
        self, template: str | None, special_tokens: Mapping[str, str], *, name: str = "the model"
    ) -> None:
        self.name = name
        self._special_tokens = dict(special_tokens)
        self._render = None if template is None else _compile(template, name)
        self._turns: dict[tuple[str, ...], tuple[str, str, str]] = {}

    # --- whole conversations ----------------------------------------------------------------------

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, **kwargs: Any
    ) -> str:
        """The whole conversation as one text. `kwargs` are further variables of the template."""
        if self._render is None:
            raise NoChatTemplate(
                f"{self.name} has no chat template: send a plain prompt instead of messages",
                field="messages",
            )
        values = {"tools": None, "documents": None} | self._special_tokens | kwargs
        try:
            return self._render(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **values
            )
        except Exception as error:  # whatever this foreign program raises is about these messages
            raise ChatTemplateError(
                f"the chat template of {self.name} refuses these messages: {error}",
                field="messages",
            ) from error

    def parts(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        *,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> Prompt:
        """The conversation as prompt parts: template text may hold special tokens, message text
        never does.

        The joined parts equal `render(...)`; `continue_final_message` ends the prompt after the
        last message's text. Raises ChatTemplateError where the template rewrites a message so that
        its text cannot be told apart.
        """
        whole = self.render(messages, add_generation_prompt, **kwargs)
        masked: list[Message] = []
        for position, message in enumerate(messages):
            is_text = isinstance(message.get("content"), str)
            masked.append({**message, "content": _sentinel(position)} if is_text else message)
        pieces = _SENTINEL.split(self.render(masked, add_generation_prompt, **kwargs))
        prompt = self._align(whole, pieces, messages)
        if continue_final_message:
            prompt = self._cut_after_last(prompt, pieces, messages)
        return tuple(part for part in prompt if part.text)

    def _align(self, whole: str, pieces: list[str], messages: Sequence[Message]) -> list[Text]:
        """Walk the real rendering along the sentinel rendering: template, message, template, ...,
        template."""
        parts: list[Text] = []
        position = 0
        for number in range(0, len(pieces), 2):
            piece = pieces[number]
            if not whole.startswith(piece, position):
                self._cannot_split()
            parts.append(Text(piece, special=True))
            position += len(piece)
            if number + 1 == len(pieces):
                break
            following = pieces[number + 2]
            source = int(pieces[number + 1])
            content = messages[source].get("content") if source < len(messages) else None
            if not isinstance(content, str):  # a sentinel typed by a user into some other field
                self._cannot_split()
            for shown in _as_templates_show(content):
                if whole.startswith(shown + following, position):
                    break
            else:
                self._cannot_split()
            parts.append(Text(shown))
            position += len(shown)
        if position != len(whole):
            self._cannot_split()
        return parts

    def _cut_after_last(
        self, prompt: list[Text], pieces: list[str], messages: Sequence[Message]
    ) -> list[Text]:
        last = str(len(messages) - 1)
        if last not in pieces[1::2]:
            raise ChatTemplateError(
                f"the chat template of {self.name} does not show the final message: "
                "it cannot be continued",
                field="continue_final_message",
            )
        return prompt[: 2 * (pieces[1::2].index(last) + 1)]

    def _cannot_split(self) -> NoReturn:
        raise ChatTemplateError(
            f"the chat template of {self.name} rewrites message text, so that it cannot be told "
            "apart from the template's own: send the rendered prompt instead of messages",
            field="messages",
        )

    # --- a growing conversation -------------------------------------------------------------------

    @cached_property
    def default_system(self) -> str | None:
        """The system text that the template itself puts before a conversation which starts without
        one."""
        if self._render is None:
            return None
        try:
            without = self.render(_masked(("user",)))
            given = self.render(_masked(("system", "user")))
        except ChatTemplateError:
            return None  # a template that knows no system message has no default one
        before, found, rest = given.partition(_sentinel(0))
        between = rest.partition(_sentinel(1))[0]
        shown = without.partition(_sentinel(0))[0]
        text = shown[len(before) : len(shown) - len(between)]
        whole = found and shown == before + text + between
        return text if whole and text else None

    def begin(self, roles: Sequence[str], role: str) -> str:
        """Template text that opens a message of `role` after finished messages of these `roles`.

        Before the first message it includes what the template puts at the top, such as a default
        system message. Raises ChatTemplateError where the template would now write the earlier
        messages in another way.
        """
        return self._turn(tuple(roles), role)[0]

    def end(self, roles: Sequence[str], role: str) -> str:
        """Template text that closes the message which `begin` with the same arguments opened."""
        return self._turn(tuple(roles), role)[1]

    def _turn(self, roles: tuple[str, ...], role: str) -> tuple[str, str, str]:
        """(prefix, suffix, the sentinel text of the conversation through this message)."""
        if self._render is None:
            return _PLAIN_PREFIX.get(role, f"{role.upper()}:"), "\n", ""
        wanted = (*roles, role)
        turn: tuple[str, str, str] | None = None
        known = len(wanted)
        while known and (turn := self._turns.get(wanted[:known])) is None:
            known -= 1
        turn = turn or ("", "", "")
        for size in range(known + 1, len(wanted) + 1):
            turn = self._new_turn(wanted[: size - 1], wanted[size - 1], turn[2])
            if len(self._turns) >= _MAX_CACHED_TURNS:
                self._turns.clear()
            self._turns[wanted[:size]] = turn
        return turn

    def _new_turn(self, roles: tuple[str, ...], role: str, before: str) -> tuple[str, str, str]:
        messages = _masked((*roles, role))
        mark, next_mark = _sentinel(len(roles)), _sentinel(len(roles) + 1)
        head, found, suffix = self.render(messages).partition(mark)
        if not found:  # folded into the message after it, as Llama 2 and Gemma do with system text
            head, found, rest = self.render(_masked((*roles, role, "user"))).partition(mark)
            suffix = rest.partition(next_mark)[0]
            if not found:
                raise ChatTemplateError(
                    f"the chat template of {self.name} does not show a {role} message here",
                    field="role",
                )
        heads = [head]
        if role == "assistant" and roles:
            heads.insert(0, self.render(messages[:-1], add_generation_prompt=True))
        stable = [head for head in heads if head.startswith(before)]
        if len(heads) == 2 and stable == heads[:1] == [before]:
            stable = []  # a template without generation prompt: only the messages tell its markup
        if not stable:
            raise ChatTemplateError(
                f"the chat template of {self.name} is not prefix-stable: once a {role} message "
                f"follows, it writes the messages before it ({', '.join(roles)}) in another way "
                "than they were already sent. Write the role markup as plain text instead.",
                field="role",
            )
        chosen = stable[0]
        if len(stable) > 1 and not self._continues((*roles, role, "user"), chosen + mark + suffix):
            chosen = stable[-1]
        return chosen[len(before) :], suffix, chosen + mark + suffix

    def _continues(self, roles: tuple[str, ...], text: str) -> bool:
        """Would the template, asked again when the conversation goes on, still begin with this
        text?"""
        try:
            return self.render(_masked(roles)).startswith(text)
        except ChatTemplateError:
            return True  # this conversation cannot go on, so nothing contradicts the text


@lru_cache(maxsize=32)
def _shared(
    template: str | None, special_tokens: tuple[tuple[str, str], ...], name: str
) -> ChatFormat:
    return ChatFormat(template, dict(special_tokens), name=name)


def chat_format(
    template: str | None, special_tokens: Mapping[str, str], name: str = "the model"
) -> ChatFormat:
    """The shared ChatFormat of a template: it is compiled once however many programs use it."""
    return _shared(template, tuple(sorted(special_tokens.items())), name)


def _sentinel(position: int) -> str:
    return f"\ue000{position}\ue001"


def _masked(roles: Sequence[str]) -> list[Message]:
    return [{"role": role, "content": _sentinel(i)} for i, role in enumerate(roles)]


def _as_templates_show(content: str) -> list[str]:
    """The ways in which templates are known to show a message's text, the plainest first."""
    answer = content.rpartition("</think>")[
        2
    ]  # earlier reasoning is dropped by reasoning models' templates
    return [
        content,
        content.strip(),
        content.lstrip(),
        content.rstrip(),
        answer.lstrip("\n"),
        answer.strip(),
    ]


def _compile(template: str, name: str) -> Callable[..., str]:
    """The environment that chat templates are written for: that of `transformers`."""
    # Imported here: only a program with roles needs it, and `import sapwood` should stay quick.
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Node, Scope
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationBlock(Extension):
        """`{% generation %}` marks the assistant's text for training; here it is plain text."""

        tags = {"generation"}

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return Scope(body, lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    try:
        return environment.from_string(template).render
    except jinja2.TemplateError as error:
        raise ChatTemplateError(
            f"the chat template of {name} is not valid Jinja: {error}"
        ) from error


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML characters, which a model must see as they are.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise ValueError(message)
