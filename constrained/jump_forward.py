"""Turning text that the machine forces into the tokens that the tokenizer itself would choose.

Forced text may be appended without a forward pass, but only as tokens that the model would have
seen in training: the boundary to what came before must be reproduced by the tokenizer, and tokens
that what comes next may still change are held back. Where that is not sure, nothing is forced.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from .pushdown.token_machine import TokenMachine
from .vocabulary import Vocabulary

_LONGEST_TAIL: Final = 16
_MOST_PROBES: Final = 4
# Next bytes that pull a tokenizer in different directions: a letter, a digit, a blank, punctuation.
_TELLING_BYTES: Final = b'a0 "\nA-('


def forced_tokens(
    machine: TokenMachine, vocabulary: Vocabulary, state: int, tail_ids: Sequence[int]
) -> list[int]:
    """Tokens that must come next after `tail_ids`, the last tokens of prompt and output.

    Their bytes are a prefix of the forced bytes of `state`. Empty where nothing is forced or the
    tokenizer's choice is not sure.
    """
    forced, end = machine.forced(state)
    if not forced or vocabulary.encode is None:
        return []
    ends_here = machine.is_end(end)
    for tail in _tails(vocabulary, tail_ids):
        before = b"".join(vocabulary.token_bytes[token] or b"" for token in tail)
        text = _whole_characters(before + forced)
        if text is None or (ends_here and len(text.encode()) < len(before + forced)):
            continue
        ids = vocabulary.encode(text)
        if len(ids) >= len(tail) and ids[: len(tail)] == tail:
            new = ids[len(tail) :]
            if not ends_here:
                kept = _settled(machine, vocabulary, before + forced, text, ids, end)
                new = ids[len(tail) : kept]
            return _spelling(vocabulary, new, forced)
    return []


def _tails(vocabulary: Vocabulary, tail_ids: Sequence[int]) -> Iterator[list[int]]:
    """The last ordinary tokens, then fewer of them: a cut may change how its first ones are read.

    At least two stay (or all there are), so that the boundary to the forced text is judged.
    """
    tail: list[int] = []
    for token in reversed(tail_ids[-_LONGEST_TAIL:]):
        if not 0 <= token < vocabulary.size or vocabulary.token_bytes[token] is None:
            break
        tail.insert(0, token)
    for dropped in (0, 1, 2, 4, 8):
        if dropped and len(tail) - dropped < 2:
            return
        yield tail[dropped:]


def _whole_characters(text: bytes) -> str | None:
    """`text` up to its last whole character; None where it is not UTF-8 otherwise."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        if error.start == 0 or error.reason != "unexpected end of data":
            return None
        return text[: error.start].decode()


def _settled(
    machine: TokenMachine, vocabulary: Vocabulary, known: bytes, text: str, ids: list[int], end: int
) -> int:
    """How many of `ids`, the tokens of `text`, stay whatever follows `known`, which begins with it.

    They stay up to a place that no token could lie across: then what the tokenizer makes of the
    text before it does not depend on what comes after, but for the blanks at which it splits texts
    into words; so that is tried with a few possible continuations.
    """
    settled, place = len(ids), len(text.encode())
    while settled and machine.crosses(end, known, place):
        settled -= 1
        place -= len(vocabulary.token_bytes[ids[settled]] or b"")
    for following in _probes(machine, end):
        longer = _whole_characters(known + following)
        if longer is not None and settled > 0 and vocabulary.encode is not None:
            settled = min(settled, _common(ids, vocabulary.encode(longer)))
    return settled


def _common(a: list[int], b: list[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _probes(machine: TokenMachine, state: int) -> list[bytes]:
    """Some texts that may follow `state`, each a whole character or a forced run."""
    allowed = machine.next_bytes(state)
    chosen = [byte for byte in dict.fromkeys(_TELLING_BYTES) if byte in allowed]
    chosen = list(dict.fromkeys([*chosen, *allowed[:1], *allowed[-1:]]))[:_MOST_PROBES]
    probes: list[bytes] = []
    for byte in chosen:
        text = bytes([byte])
        here = machine.step(state, text)
        while byte >= 0xC0 and _whole_characters(text) is None:  # the rest of the character
            text += bytes([machine.next_bytes(here)[0]])
            here = machine.step(state, text)
        forced, _ = machine.forced(here)
        probes.append(text + forced)
    return probes


def _spelling(vocabulary: Vocabulary, tokens: list[int], forced: bytes) -> list[int]:
    """The leading tokens that spell a prefix of `forced`."""
    at = 0
    for count, token in enumerate(tokens):
        text = vocabulary.token_bytes[token] if 0 <= token < vocabulary.size else None
        if text is None or not forced.startswith(text, at):
            return tokens[:count]
        at += len(text)
    return tokens
