"""Chat templates by name: the role markup of well-known model families, as SGLang names them.

Owns: the record of one, its form as Jinja text (which `chat` reads like any model's own), the table
and the choice by a model's path. Knows no tokenizer.

A default system text is here only where it is known whole; the families that have a longer one
(vicuna, yi-vl, dbrx, intern-s1) start without.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from .errors import InvalidRequest


class ChatTemplateStyle(StrEnum):
    """LLAMA2: a system text stands inside the first user message."""

    PLAIN = "plain"
    LLAMA2 = "llama2"


@dataclass(frozen=True)
class ChatTemplate:
    """`role_prefix_and_suffix`: role -> (text before a message, text after it). `stop_str`: what
    ends a generation besides the model's own end token. `image_token`: stands for an image."""

    name: str
    default_system_prompt: str | None = None
    role_prefix_and_suffix: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    stop_str: tuple[str, ...] = ()
    image_token: str = "<image>"
    style: ChatTemplateStyle = ChatTemplateStyle.PLAIN

    def get_prefix_and_suffix(
        self, role: str, hist_messages: Sequence[Mapping[str, str | None]]
    ) -> tuple[str, str]:
        """Of a message of `role` that follows these."""
        prefix, suffix = self.role_prefix_and_suffix.get(role, ("", ""))
        if self.style is ChatTemplateStyle.LLAMA2:
            if role == "system" and not hist_messages:
                user_prefix, _ = self.role_prefix_and_suffix.get("user", ("", ""))
                return user_prefix + prefix, suffix
            if role == "user" and [one["role"] for one in hist_messages] == ["system"]:
                return "", suffix
        return prefix, suffix

    def get_prompt(self, messages: Sequence[Mapping[str, str | None]]) -> str:
        """The conversation as text. A message whose content is None is left out, and the default
        system text stands for one of the system's."""
        pieces: list[str] = []
        for index, message in enumerate(messages):
            role, content = str(message["role"]), message["content"]
            if role == "system" and content is None:
                content = self.default_system_prompt
            if content is None:
                continue
            prefix, suffix = self.get_prefix_and_suffix(role, messages[:index])
            pieces.append(prefix + content + suffix)
        return "".join(pieces)

    def jinja(self) -> str:
        """The same markup as the text of a Jinja template."""
        names = {role: list(pair) for role, pair in self.role_prefix_and_suffix.items()}
        markup = _jinja_text(names)
        default = _jinja_text(self.default_system_prompt)
        return "".join(
            (
                "{%- set markup = " + markup + " %}",
                "{%- set default = " + default + " %}",
                "{%- set messages = ([{'role': 'system', 'content': default}] + messages) "
                "if default and messages and messages[0].role != 'system' else messages %}",
                "{%- for m in messages %}",
                "{%- if m.role not in markup %}{{ raise_exception('role ' ~ m.role) }}{% endif %}",
                "{%- set prefix = markup[m.role][0] %}",
                _JINJA_LLAMA2 if self.style is ChatTemplateStyle.LLAMA2 else "",
                "{{- prefix }}{{- m.content }}{{- markup[m.role][1] }}",
                "{%- endfor %}",
                "{%- if add_generation_prompt %}{{- markup.assistant[0] }}{% endif %}",
            )
        )


_JINJA_LLAMA2: Final = (
    "{%- if m.role == 'system' and loop.first %}"
    "{%- set prefix = markup.user[0] + markup.system[0] %}"
    "{%- elif m.role == 'user' and loop.index0 == 1 and messages[0].role == 'system' %}"
    "{%- set prefix = '' %}{%- endif %}"
)


def _jinja_text(value: object) -> str:
    """A JSON value as an expression of Jinja, whose notation of texts knows JSON's escapes."""
    return "none" if value is None else json.dumps(value)


# --- the table ---------------------------------------------------------------------------------

_CHATML: Final = {
    "system": ("<|im_start|>system\n", "<|im_end|>\n"),
    "user": ("<|im_start|>user\n", "<|im_end|>\n"),
    "assistant": ("<|im_start|>assistant\n", "<|im_end|>\n"),
}
_LLAMA_3: Final = {
    role: (f"<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>")
    for role in ("system", "user", "assistant")
}
_DEEPSEEK: Final = {
    "system": ("", ""),
    "user": ("<｜User｜>", ""),
    "assistant": ("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
}
_MINICPM: Final = {
    "system": ("", " "),
    "user": ("user:", " "),
    "assistant": ("assistant:", "</s>"),
}
_HELPFUL: Final = "You are a helpful assistant."
_INTERN_VL: Final = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
    "多模态大语言模型。"
)
_DEEPSEEK_STOP: Final = ("<｜end▁of▁sentence｜>",)

_BUILT_IN: Final = (
    ChatTemplate(
        "default",
        None,
        {
            "system": ("SYSTEM:", "\n"),
            "user": ("USER:", "\n"),
            "assistant": ("ASSISTANT:", "\n"),
        },
    ),
    ChatTemplate(
        "claude",
        None,
        {
            "system": ("", ""),
            "user": ("\n\nHuman: ", ""),
            "assistant": ("\n\nAssistant:", ""),
        },
    ),
    ChatTemplate("chatml", None, _CHATML, ("<|im_end|>",)),
    ChatTemplate("chatml-llava", _HELPFUL, _CHATML, ("<|im_end|>",), "<image>\n"),
    ChatTemplate("qwen", _HELPFUL, _CHATML, ("<|im_end|>",)),
    ChatTemplate(
        "qwen2-vl",
        _HELPFUL,
        _CHATML,
        ("<|im_end|>",),
        "<|vision_start|><|image_pad|><|vision_end|>",
    ),
    ChatTemplate(
        "vicuna_v1.1",
        None,
        {"system": ("", " "), "user": ("USER:", " "), "assistant": ("ASSISTANT:", "</s>")},
        image_token=" <image>\n",
    ),
    ChatTemplate(
        "llama-2-chat",
        None,
        {
            "system": ("<<SYS>>\n", "\n<</SYS>>\n\n"),
            "user": ("[INST] ", " [/INST]"),
            "assistant": ("", " </s><s>"),
        },
        style=ChatTemplateStyle.LLAMA2,
    ),
    ChatTemplate(
        "mistral",
        None,
        {
            "system": ("[SYSTEM_PROMPT] ", " [/SYSTEM_PROMPT]"),
            "user": ("[INST] ", " [/INST]"),
            "assistant": ("", " </s><s>"),
        },
        ("</s>",),
        "[IMG]",
    ),
    ChatTemplate("llama-3-instruct", None, _LLAMA_3, ("<|eot_id|>",), "<|image|>"),
    ChatTemplate(
        "minicpmv", None, _MINICPM, ("<|im_end|>", "<|endoftext|>"), "(<image>./</image>)"
    ),
    ChatTemplate("janus-pro", None, _DEEPSEEK, _DEEPSEEK_STOP, "<image_placeholder>\n"),
    ChatTemplate(
        "minicpmo", None, _MINICPM, ("<|im_end|>", "<|endoftext|>"), "(<image>./</image>)"
    ),
    ChatTemplate("janus", None, _DEEPSEEK, _DEEPSEEK_STOP, "<image_placeholder>\n"),
    ChatTemplate("llama-3-instruct-llava", None, _LLAMA_3, ("<|eot_id|>",), "<image>\n"),
    ChatTemplate(
        "llama-4",
        None,
        {
            role: (f"<|header_start|>{role}<|header_end|>\n\n", "<|eot|>")
            for role in ("system", "user", "assistant")
        },
        ("<|eot|>",),
        "<|image|>",
    ),
    ChatTemplate(
        "yi-1.5",
        None,
        {
            "system": ("", ""),
            "user": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
            "assistant": ("", "<|im_end|>\n"),
        },
        ("<|im_end|>",),
    ),
    ChatTemplate(
        "yi-vl",
        None,
        {
            "system": ("", "\n\n"),
            "user": ("### Human:", "\n"),
            "assistant": ("### Assistant:", "\n"),
        },
        image_token=" <image_placeholder>\n",
    ),
    ChatTemplate(
        "gemma-it",
        None,
        {
            "system": ("", ""),
            "user": ("<start_of_turn>user\n", "<end_of_turn>\n"),
            "assistant": ("<start_of_turn>model\n", "<end_of_turn>\n"),
        },
        image_token="<start_of_image>",
    ),
    ChatTemplate(
        "gemma-4-it",
        None,
        {
            "system": ("", ""),
            "user": ("<|turn>user\n", "<turn|>\n"),
            "assistant": ("<|turn>assistant\n", "<turn|>\n"),
        },
    ),
    ChatTemplate(
        "dbrx-instruct",
        None,
        {
            "system": ("<|im_start|>system\n", "<|im_end|>"),
            "user": ("\n<|im_start|>user\n", "<|im_end|>"),
            "assistant": ("\n<|im_start|>assistant\n", "<|im_end|>"),
        },
        ("<|im_end|>",),
    ),
    ChatTemplate(
        "c4ai-command-r",
        None,
        {
            "system": ("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            "user": ("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            "assistant": ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        },
    ),
    ChatTemplate("internvl-2-5", _INTERN_VL, _CHATML, ("<|im_end|>", "<|action_end|>")),
    ChatTemplate("interns1", None, _CHATML, ("<|im_end|>", "<|action_end|>")),
    ChatTemplate(
        "granite-3-instruct",
        None,
        {
            role: (f"<|start_of_role|>{role}<|end_of_role|>", "<|end_of_text|>")
            for role in ("system", "user", "assistant")
        },
        ("<|end_of_text|>",),
    ),
    ChatTemplate("deepseek-v3", None, _DEEPSEEK, _DEEPSEEK_STOP),
    ChatTemplate(
        "glm-4v",
        None,
        {role: (f"<|{role}|>\n", "\n") for role in ("system", "user", "assistant")},
        ("<|user|>", "<|endoftext|>", "<|observation|>"),
        "<|image|>",
    ),
)

# The first pattern that is found in a model's path, whatever its case, decides.
_BY_PATH: Final = (
    (r"deepseek-(v3|r1)(?!.*base)", "deepseek-v3"),
    (r"orion", "claude"),
    (r"janus-pro", "janus-pro"),
    (r"dbrx-instruct", "dbrx-instruct"),
    (r"vicuna|llava-v1\.5|llava-next-video-7b", "vicuna_v1.1"),
    (r"llama-2.*chat|codellama.*instruct", "llama-2-chat"),
    (r"pixtral|(mistral|mixtral).*instruct", "mistral"),
    (r"llama-3.*instruct", "llama-3-instruct"),
    (r"tinyllama", "chatml"),
    (r"qwen.*vl", "qwen2-vl"),
    (r"glm[-_]?4(\.\d+)?v", "glm-4v"),
    (r"^(?!.*llava).*qwen.*(chat|instruct)", "qwen"),
    (r"llava-v1\.6-34b|llava-v1\.6-yi-34b|llava-next-video-34b|llava-onevision", "chatml-llava"),
    (r"yi-vl", "yi-vl"),
    (r"yi-1\.5.*chat", "yi-1.5"),
    (r"gemma-4.*it", "gemma-4-it"),
    (r"gemma.*it", "gemma-it"),
    (r"minicpm-v", "minicpmv"),
    (r"minicpm-o", "minicpmo"),
    (r"c4ai-command-r", "c4ai-command-r"),
    (r"granite.*instruct", "granite-3-instruct"),
    (r"internvl2[-_.]5", "internvl-2-5"),
    (r"intern-?s1", "interns1"),
)


class ChatTemplates:
    """The templates that have a name; a new one may be registered at any time."""

    def __init__(self) -> None:
        self._by_name = {template.name: template for template in _BUILT_IN}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    def register(self, template: ChatTemplate) -> None:
        """Under its name, in the place of one that had it."""
        if not isinstance(template, ChatTemplate):
            raise TypeError(f"{template!r} is not a ChatTemplate")
        self._by_name[template.name] = template

    def get(self, name: str) -> ChatTemplate:
        """Raises InvalidRequest that lists the known names."""
        found = self._by_name.get(name)
        if found is None:
            raise InvalidRequest(
                f"chat_template_name: {name!r} is none of {', '.join(self._by_name)}",
                field="chat_template_name",
            )
        return found

    def by_model_path(self, path: str) -> ChatTemplate:
        """The template that fits a model by its name; "default" if none is known to."""
        for pattern, name in _BY_PATH:
            if re.search(pattern, path, re.IGNORECASE):
                return self.get(name)
        return self.get("default")


TEMPLATES: Final = ChatTemplates()
"""The process's own."""

get_chat_template = TEMPLATES.get
get_chat_template_by_model_path = TEMPLATES.by_model_path
register_chat_template = TEMPLATES.register
