"""Where does an output end? Stop ids, stop strings and stop patterns over one request's output
bytes.

Owns: the output bytes of one request and the search in them. Knows nothing of text decoding (the
client's) or grammars beyond the question `is_allowed(data)` that its caller may pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .errors import InvalidRequest
from .stop_patterns import compile_stop_pattern

PATTERN_SECONDS = (
    0.05  # one search of one stop pattern; beyond it the request is refused, its neighbours go on
)
PATTERN_WINDOW = 4_096  # characters at the end of the output that a stop pattern sees


@dataclass(frozen=True)
class StopMatch:
    """`matched`: the stop string or pattern; the output's bytes from `start` to `end` matched
    it."""

    matched: str
    start: int
    end: int


class StopFinder:
    """Finds the first stop match in a growing output. One per request that has stop strings or
    patterns."""

    def __init__(self, strings: Sequence[str], patterns: Sequence[str]) -> None:
        self._strings = [(text, text.encode()) for text in strings]
        self._patterns = [(pattern, compile_stop_pattern(pattern)) for pattern in patterns]
        self._longest = max((len(data) for _, data in self._strings), default=0)

    def find(
        self, output: bytes | bytearray, num_new: int, is_allowed: Callable[[int, int], bool]
    ) -> StopMatch | None:
        """The earliest match that `is_allowed(start, end)`; of stop strings, only those that end
        within the last `num_new` bytes are looked for.

        Raises InvalidRequest when a pattern takes too long.
        """
        matches = [*self._string_matches(output, num_new), *self._pattern_matches(output)]
        for match in sorted(matches, key=lambda match: (match.start, match.end)):
            if is_allowed(match.start, match.end):
                return match
        return None

    def _string_matches(self, output: bytes | bytearray, num_new: int) -> list[StopMatch]:
        matches = []
        for text, data in self._strings:
            at = output.find(data, max(0, len(output) - num_new - len(data) + 1))
            while at >= 0:
                matches.append(StopMatch(text, at, at + len(data)))
                at = output.find(data, at + 1)
        return matches

    def _pattern_matches(self, output: bytes | bytearray) -> list[StopMatch]:
        if not self._patterns:
            return []
        # One character is at most four bytes; a cut character at either edge of the window is
        # dropped.
        window = bytes(output[-4 * PATTERN_WINDOW :])
        text = window.decode("utf-8", errors="ignore")
        offset = len(output) - len(window)
        matches = []
        for pattern, compiled in self._patterns:
            try:
                spans = [found.span() for found in compiled.finditer(text, timeout=PATTERN_SECONDS)]
            except TimeoutError:
                raise InvalidRequest(
                    f"stop_regex: {pattern!r} takes longer than {PATTERN_SECONDS} s to search",
                    field="stop_regex",
                ) from None
            for span in spans:
                start, end = (offset + _byte_offset(window, text, at) for at in span)
                if start < end:
                    matches.append(StopMatch(pattern, start, end))
        return matches


def _byte_offset(window: bytes, text: str, at: int) -> int:
    """Byte position in `window` of character `at` of `text`, its decoding with broken characters
    left out."""
    if len(text.encode()) == len(window):
        return len(text[:at].encode())
    # Broken characters can only stand at the edges (a cut window, an unfinished last character) or
    # where the model wrote invalid UTF-8; count them by decoding prefixes with the same rule.
    low, high = 0, len(window)
    while low < high:
        middle = (low + high) // 2
        if len(window[:middle].decode("utf-8", errors="ignore")) < at:
            low = middle + 1
        else:
            high = middle
    return low
