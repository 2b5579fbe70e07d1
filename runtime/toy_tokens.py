"""Toy tokens for the scripted client: one per UTF-8 byte, plus ChatML's two special tokens.

Owns: the rule from text to these tokens and back, and what an engine would say of them.
"""

import itertools
from collections.abc import Sequence

from .protocol import EngineInfo, Ids, Part, Prompt

_SPECIAL = {"<|im_start|>": 256, "<|im_end|>": 257}
EOS_ID = 257
TOY_CHATML = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}"
    "<|im_start|>system\nBe helpful.<|im_end|>\n{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOY_INFO = EngineInfo(
    model="scripted",
    context_length=1 << 20,
    vocab_size=258,
    max_tokens_in_cache=1 << 20,
    page_size=16,
    dtype="float32",
    chat_template=TOY_CHATML,
    special_tokens={"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
    eos_ids=(EOS_ID,),
)


def encode(part: Part) -> tuple[int, ...]:
    """The toy tokens of one part: bytes, and the two special tokens where the part may hold
    them."""
    if isinstance(part, Ids):
        return part.ids
    if not part.special:
        return tuple(part.text.encode())
    ids: list[int] = []
    rest = part.text
    while rest:
        for token, token_id in _SPECIAL.items():
            if rest.startswith(token):
                ids.append(token_id)
                rest = rest[len(token) :]
                break
        else:
            ids.extend(rest[0].encode())
            rest = rest[1:]
    return tuple(ids)


def encode_prompt(prompt: Prompt) -> tuple[int, ...]:
    return tuple(itertools.chain.from_iterable(map(encode, prompt)))


def decode(ids: Sequence[int]) -> str:
    """Inverse of `encode`; special tokens come back as their text."""
    names = {token_id: token.encode() for token, token_id in _SPECIAL.items()}
    return b"".join(names.get(i) or bytes([i]) for i in ids).decode(errors="replace")
