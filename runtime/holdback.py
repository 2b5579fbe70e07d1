"""How much of a growing text may be shown before its end is known.

Owns: the search for what may still become a stop string or a match of a stop pattern. Knows no
tokens; where the text really ends is the engine's word.
"""

from collections.abc import Sequence
from typing import Final

import regex

_SECONDS: Final = 0.02  # one search for the begin of a pattern; a slower one shows no more text
_NOTHING: Final = r"[^\x00-\U0010ffff]"  # no character: what comes before it can match in part only


class HoldBack:
    """For one sample. `strings`, `patterns`: what ends its text and is cut from it."""

    def __init__(self, strings: Sequence[str], patterns: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._patterns: list[regex.Pattern[str]] = []
        self._blind = False  # show nothing more before the end
        self._text = ""  # with patterns all of it, for what they look back at; else what is held
        self._start = 0  # where the held text begins
        try:
            self._patterns = [regex.compile(f"(?:{pattern}){_NOTHING}") for pattern in patterns]
        except regex.error:  # a pattern that stands only by itself, such as one ending in a comment
            self._blind = True

    def push(self, text: str) -> str:
        """Take more text in; what of it and of the held text no later text can cut off."""
        self._text += text
        end = self._begin_of_stop()
        safe = self._text[self._start : end]
        if self._patterns:
            self._start = end
        else:
            self._text = self._text[end:]
        return safe

    def _begin_of_stop(self) -> int:
        """Where the held text may begin a stop; the end of the text if nowhere."""
        text, start = self._text, self._start
        if self._blind:
            return start
        begin = min((_begin_of(stop, text, start) for stop in self._strings), default=len(text))
        if not self._patterns:
            return begin
        if "\ufffd" in text:
            # Broken characters: the engine searches a text without them.
            self._blind = True
            return start
        try:
            for pattern in self._patterns:
                found = pattern.search(text, pos=start, partial=True, timeout=_SECONDS)
                begin = min(begin, found.start() if found else len(text))
        except TimeoutError:
            self._blind = True
            return start
        return begin


def _begin_of(stop: str, text: str, start: int) -> int:
    """Where the longest end of `text` begins that is a proper begin of `stop`."""
    longest = min(len(stop) - 1, len(text) - start)
    if longest <= 0:
        return len(text)
    last = text[-1]
    length = stop.rfind(last, 0, longest) + 1
    while length > 0:
        if text.endswith(stop[:length]):
            return len(text) - length
        length = stop.rfind(last, 0, length - 1) + 1
    return len(text)
