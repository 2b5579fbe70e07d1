"""Telling a model's reasoning from its answer, by the marks of its family.

Owns: the marks, by SGLang's names of the families, and the split of a whole text. Knows no state.
"""

from dataclasses import dataclass
from typing import Final

from ..runtime.errors import InvalidRequest


@dataclass(frozen=True)
class ReasoningFormat:
    """`begin` and `end` stand around the reasoning. `implied`: the chat template has said `begin`
    already, so that the text may open with reasoning."""

    begin: str
    end: str
    implied: bool = False

    def split(self, text: str) -> tuple[str, str]:
        """(reasoning, answer), both without blanks around them. Text without marks is an answer,
        or, where `begin` is implied, reasoning that was cut off before its end."""
        opened = text.lstrip().startswith(self.begin)
        if not opened and not self.implied:
            return "", text
        inside = text.lstrip().removeprefix(self.begin)
        reasoning, _, answer = inside.partition(self.end)
        return reasoning.strip(), answer.strip()


_THINK: Final = ReasoningFormat("<think>", "</think>")
_THINK_IMPLIED: Final = ReasoningFormat("<think>", "</think>", implied=True)

FORMATS: Final = {
    "deepseek-r1": _THINK_IMPLIED,
    "deepseek-v3": _THINK,
    "glm45": _THINK,
    "kimi": ReasoningFormat("◁think▷", "◁/think▷"),
    "mistral": ReasoningFormat("[THINK]", "[/THINK]"),
    "qwen3": _THINK,
    "qwen3-thinking": _THINK_IMPLIED,
    "step3": _THINK_IMPLIED,
}


def reasoning_format(model_type: object) -> ReasoningFormat:
    """By the name of a model family. Raises InvalidRequest for an unknown one."""
    found = FORMATS.get(model_type.lower()) if isinstance(model_type, str) else None
    if found is None:
        raise InvalidRequest(
            f"model_type: {model_type!r} is none of {', '.join(FORMATS)}", field="model_type"
        )
    return found
