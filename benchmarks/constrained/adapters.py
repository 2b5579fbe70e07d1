"""The engines behind one small interface: compile a schema, fill a mask, take a token.

Owns: how each engine is asked, and nothing else. Each adapter imports its engine when it is made,
so that this module loads under any interpreter; ImportError says that the engine is absent. Runs
under the engine's own Python, with numpy and tokenizers beside it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]
"""Packed masks, int32 [rows, words]: bit t % 32 of word t // 32 is set if token t is allowed."""


class Whitespace(Enum):
    FREE = "free"  # as much as the engine lets stand between the parts of a document
    PRINTED = "printed"  # as printers lay it out, on one line or many
    FIXED = "fixed"  # one spelling of each document: that of Python's json.dumps


class Refused(Exception):
    """The engine does not take the schema; the message is its own."""


class Matcher(Protocol):
    """One output. Bound to its row of masks from the start."""

    def fill_mask(self) -> None: ...

    def accept(self, token: int) -> bool:
        """False where the token is not allowed; the matcher is then not used again."""

    def forced_tokens(self, taken: Sequence[int]) -> list[int]:
        """What the engine would append without asking the model, after the tokens `taken`."""


class Grammar(Protocol):
    def start(self, rows: Rows, index: int = 0) -> Matcher: ...

    def fill_batch(self) -> Callable[[Sequence[Any], Rows], None] | None:
        """A call that fills row i from matcher i for all of them; None where there is none."""


class Engine(Protocol):
    """jumps: in which whitespace it has jump-forward, to be measured."""

    version: str
    jumps: Sequence[Whitespace]

    def compile(self, schema: str, whitespace: Whitespace) -> Grammar:
        """Raises Refused. What an engine keeps from schemas before is its own business; each schema
        is compiled once for either whitespace."""


class Tokens:
    """The tokenizer that all engines use, from the folder that `write` made."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer_json: Final = (folder / "tokenizer.json").read_text()
        facts = json.loads((folder / "tokens.json").read_text())
        self.spelled: Final[list[bytes | None]] = [
            None if text is None else bytes.fromhex(text) for text in facts["spelled"]
        ]
        self.eos_ids: Final[list[int]] = facts["eos_ids"]
        self._tokenizer = Tokenizer.from_str(self.tokenizer_json)

    @property
    def num_words(self) -> int:
        return (len(self.spelled) + 31) // 32

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> bytes:
        return b"".join(self.spelled[id] or b"" for id in ids)

    @staticmethod
    def write(
        folder: Path, tokenizer: Any, spelled: Sequence[bytes | None], eos_ids: Sequence[int]
    ) -> None:
        facts = {
            "spelled": [None if text is None else text.hex() for text in spelled],
            "eos_ids": list(eos_ids),
        }
        (folder / "tokenizer.json").write_text(tokenizer.to_str())
        (folder / "tokens.json").write_text(json.dumps(facts))


# --- ours ----------------------------------------------------------------------------------------

_OUR_WHITESPACE: Final = {
    Whitespace.FREE: "flexible",
    Whitespace.PRINTED: "printed",
    Whitespace.FIXED: "spaced",
}


class Sapwood:
    """With all documents that the schema has: keys in any order, 1.0 as an integer."""

    jumps: Sequence[Whitespace] = tuple(Whitespace)
    options: Mapping[str, Any] = {"key_order": "any", "integer_fraction": True}

    def __init__(self, tokens: Tokens) -> None:
        from sapwood.constrained import GrammarCompiler, GrammarError, JsonSchema, Vocabulary

        self.version = version("sapwood")
        self._compiler = GrammarCompiler(Vocabulary(tokens.spelled, tokens.eos_ids, tokens.encode))
        self._spec, self._error = JsonSchema, GrammarError

    def compile(self, schema: str, whitespace: Whitespace) -> Grammar:
        try:
            spec = self._spec.of(schema, whitespace=_OUR_WHITESPACE[whitespace], **self.options)
            return _SapwoodGrammar(self._compiler.compile(spec))
        except self._error as error:
            raise Refused(f"{type(error).__name__}: {error}") from error


class SapwoodOrdered(Sapwood):
    """As it comes: keys in the order of the schema, no fraction in an integer."""

    options: Mapping[str, Any] = {}


class _SapwoodGrammar:
    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def start(self, rows: Rows, index: int = 0) -> Matcher:
        return _SapwoodMatcher(self._compiled.start(), rows[index])

    def fill_batch(self) -> Callable[[Sequence[Any], Rows], None] | None:
        from sapwood.constrained import fill_masks

        def fill(matchers: Sequence[Any], rows: Rows) -> None:
            places = range(len(matchers))
            fill_masks([each.state for each in matchers], [None] * len(matchers), rows, places)

        return fill


class _SapwoodMatcher:
    def __init__(self, state: Any, row: Rows) -> None:
        self.state, self._row = state, row

    def fill_mask(self) -> None:
        self.state.fill_mask(self._row)

    def accept(self, token: int) -> bool:
        return bool(self.state.accept(token))

    def forced_tokens(self, taken: Sequence[int]) -> list[int]:
        return list(self.state.forced_tokens(taken))


# --- llguidance ----------------------------------------------------------------------------------


class LLGuidance:
    jumps: Sequence[Whitespace] = (Whitespace.FREE, Whitespace.FIXED)

    def __init__(self, tokens: Tokens) -> None:
        import llguidance
        import llguidance.numpy

        self.version = version("llguidance")
        self._library = llguidance
        slices = llguidance.LLTokenizer.json_slices()  # theirs for schemas
        self._tokenizer = llguidance.LLTokenizer(
            tokens.tokenizer_json, eos_token=tokens.eos_ids, slices=slices
        )

    def compile(self, schema: str, whitespace: Whitespace) -> Grammar:
        # A server's options win over what a schema says in "x-guidance".
        options: dict[str, Any] = {"whitespace_flexible": True}
        if whitespace is Whitespace.FIXED:
            options = {
                "whitespace_flexible": False,
                "item_separator": ", ",
                "key_separator": ": ",
            }
        matcher = self._library.LLMatcher
        try:
            grammar = matcher.grammar_from_json_schema(schema, overrides=options)
        except ValueError as error:
            raise Refused(str(error)) from error
        first = matcher(self._tokenizer, grammar, log_level=0)
        if first.is_error():
            raise Refused(first.get_error())
        return _LLGuidanceGrammar(self._library, first)


class _LLGuidanceGrammar:
    def __init__(self, library: Any, first: Any) -> None:
        self._library, self._first = library, first

    def start(self, rows: Rows, index: int = 0) -> Matcher:
        return _LLGuidanceMatcher(self._first.deep_copy(), rows[index])

    def fill_batch(self) -> Callable[[Sequence[Any], Rows], None] | None:
        executor = self._library.LLExecutor(num_threads=1)
        fill = self._library.numpy.fill_next_token_bitmask_par

        def fill_all(matchers: Sequence[Any], rows: Rows) -> None:
            fill(executor, [(each.matcher, i) for i, each in enumerate(matchers)], rows)

        return fill_all


class _LLGuidanceMatcher:
    def __init__(self, matcher: Any, row: Rows) -> None:
        self.matcher = matcher
        self._address, self._size = row.ctypes.data, row.nbytes

    def fill_mask(self) -> None:
        self.matcher.unsafe_compute_mask_ptr(self._address, self._size)

    def accept(self, token: int) -> bool:
        return bool(self.matcher.consume_token(token))

    def forced_tokens(self, taken: Sequence[int]) -> list[int]:
        return list(self.matcher.compute_ff_tokens())


# --- XGrammar ------------------------------------------------------------------------------------


class XGrammar:
    """With JSON Schema's meaning of objects: open unless they say not."""

    jumps: Sequence[Whitespace] = (Whitespace.FREE, Whitespace.FIXED)
    strict_mode = False

    def __init__(self, tokens: Tokens) -> None:
        import xgrammar

        self.version = version("xgrammar")
        self._library, self._tokens = xgrammar, tokens
        info = xgrammar.TokenizerInfo(
            [text or b"" for text in tokens.spelled],
            xgrammar.VocabType.RAW,
            vocab_size=len(tokens.spelled),
            stop_token_ids=tokens.eos_ids,
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1)

    def compile(self, schema: str, whitespace: Whitespace) -> Grammar:
        try:
            compiled = self._compiler.compile_json_schema(
                schema,
                any_whitespace=whitespace is Whitespace.FREE,
                strict_mode=self.strict_mode,
            )
        except Exception as error:  # its own errors and those of its binding
            raise Refused(f"{type(error).__name__}: {error}") from error
        return _XGrammarGrammar(self._library, compiled, self._tokens)


class XGrammarStrict(XGrammar):
    """As it comes: no keys beyond those that are declared, unless the schema has a word for them.
    Another language than the schema's, and a much smaller one."""

    strict_mode = True


class _XGrammarGrammar:
    def __init__(self, library: Any, compiled: Any, tokens: Tokens) -> None:
        self._library, self._compiled, self._tokens = library, compiled, tokens

    def start(self, rows: Rows, index: int = 0) -> Matcher:
        matcher = self._library.GrammarMatcher(self._compiled)
        return _XGrammarMatcher(matcher, rows, index, self._tokens)

    def fill_batch(self) -> Callable[[Sequence[Any], Rows], None] | None:
        fill = self._library.BatchGrammarMatcher(max_threads=1).batch_fill_next_token_bitmask
        return lambda matchers, rows: fill([each.matcher for each in matchers], rows)


class _XGrammarMatcher:
    def __init__(self, matcher: Any, rows: Rows, index: int, tokens: Tokens) -> None:
        self.matcher = matcher
        self._rows, self._index, self._tokens = rows, index, tokens

    def fill_mask(self) -> None:
        # It leaves the row alone where all is allowed, and says so.
        if not self.matcher.fill_next_token_bitmask(self._rows, self._index):
            self._rows[self._index] = -1

    def accept(self, token: int) -> bool:
        return bool(self.matcher.accept_token(token))

    def forced_tokens(self, taken: Sequence[int]) -> list[int]:
        """It gives a string: the text with it is tokenized anew, as its servers do."""
        jump = self.matcher.find_jump_forward_string()
        if not jump:
            return []
        before = self._tokens.decode(taken).decode(errors="ignore")
        ids = self._tokens.encode(before + jump)
        if ids[: len(taken)] == list(taken):
            return ids[len(taken) :]
        return self._tokens.encode(jump)  # an earlier token would have to change


# --- outlines-core -------------------------------------------------------------------------------


class OutlinesCore:
    jumps: Sequence[Whitespace] = ()

    def __init__(self, tokens: Tokens) -> None:
        import outlines_core

        self.version = version("outlines_core")
        self._library = outlines_core
        ids: dict[bytes, list[int]] = {}
        for token, text in enumerate(tokens.spelled):
            if text:
                ids.setdefault(text, []).append(token)
        self._vocabulary = outlines_core.Vocabulary(tokens.eos_ids[0], ids)

    def compile(self, schema: str, whitespace: Whitespace) -> Grammar:
        # Its own pattern is an optional space. A fixed one it applies on both sides of each part,
        # so the spacing of json.dumps cannot be had; it forces nothing, so nobody asks.
        assert whitespace is Whitespace.FREE
        try:
            regex = self._library.json_schema.build_regex_from_schema(schema)
            index = self._library.Index(regex, self._vocabulary)
        except Exception as error:  # ValueError for some, its binding's panics for others
            raise Refused(f"{type(error).__name__}: {error}") from error
        return _OutlinesGrammar(self._library, index)


class _OutlinesGrammar:
    def __init__(self, library: Any, index: Any) -> None:
        self._library, self._index = library, index

    def start(self, rows: Rows, index: int = 0) -> Matcher:
        return _OutlinesMatcher(self._library.Guide(self._index), rows[index])

    def fill_batch(self) -> Callable[[Sequence[Any], Rows], None] | None:
        return None


class _OutlinesMatcher:
    def __init__(self, guide: Any, row: Rows) -> None:
        self._guide, self._place = guide, (row.ctypes.data, row.size, row.itemsize)

    def fill_mask(self) -> None:
        self._guide.write_mask_into(*self._place)

    def accept(self, token: int) -> bool:
        try:
            self._guide.advance(token, return_tokens=False)
        except ValueError:
            return False
        return True

    def forced_tokens(self, taken: Sequence[int]) -> list[int]:
        return []


ENGINES: Final[Mapping[str, Callable[[Tokens], Engine]]] = {
    "sapwood": Sapwood,
    "sapwood-ordered": SapwoodOrdered,
    "llguidance": LLGuidance,
    "xgrammar": XGrammar,
    "xgrammar-strict": XGrammarStrict,
    "outlines-core": OutlinesCore,
}
OURS: Final = ("sapwood", "sapwood-ordered")
