"""The rules of a request's output: a token is appended, the grammar advances, forced text follows,
an end is found.

Owns: what one chosen token does to one Request. Knows no page, no batch and no other request.
"""

from collections.abc import Sequence

from ..constrained import GrammarState
from .errors import EngineError
from .healing import Tentative
from .protocol import FinishKind, FinishReason
from .request import Request

FORCE_TAIL = 16  # tokens before the forced text that its tokenization may depend on


class Advancer:
    """`token_bytes[t]`: the bytes of token t, None for special tokens; `special_bytes`: the text of
    those."""

    def __init__(
        self,
        token_bytes: Sequence[bytes | None],
        special_bytes: dict[int, bytes],
        eos_ids: Sequence[int],
        jump_forward: bool,
    ) -> None:
        self._token_bytes = token_bytes
        self._special_bytes = special_bytes
        self._eos_ids = frozenset(eos_ids)
        self._jump_forward = jump_forward

    def begin(self, request: Request) -> None:
        """Before the first token: text that the grammar forces at once joins the prompt's
        prefill."""
        if request.finish is not None or request.grammar is None:
            return
        if request.tentative is not None:
            if not self._forces_apart(request, request.tentative, request.grammar):
                return
            self._absorb(request, request.tentative, len(request.tentative.ids))
        self._jump(request)

    def _forces_apart(self, request: Request, tentative: Tentative, grammar: GrammarState) -> bool:
        """Whether the tokenizer itself would leave the tentative tokens before forced text as they
        are."""
        tail = [*request.tokens[-FORCE_TAIL:], *tentative.ids][-FORCE_TAIL:]
        return bool(self.forced(grammar, tail, request.max_tokens))

    @staticmethod
    def _absorb(request: Request, tentative: Tentative, count: int) -> None:
        """The next `count` tentative tokens are the prompt's."""
        request.tokens.extend(tentative.ids[:count])
        request.prompt_len += count
        request.tentative = tentative.after(count)

    def append(self, request: Request, token: int) -> None:
        """The model chose `token`. May append forced tokens after it, may set `request.finish` and
        `request.cut`.

        Raises InvalidRequest when a stop pattern is too slow, LimitExceeded when the grammar is.
        """
        num_hidden = 0
        if request.tentative is not None:
            if token == request.tentative.ids[0]:
                self._absorb(request, request.tentative, 1)
                return
            num_hidden = self._replace(request, request.tentative, token)
        is_end = self._is_end(request, token)
        num_new_bytes = self._take(request, token, num_hidden=num_hidden)
        if is_end:
            request.finish = FinishReason(FinishKind.STOP, matched=token)
            request.cut = len(request.output_bytes) - num_new_bytes  # the end token is no text
            return
        self._after(request, num_new_bytes)
        if request.finish is None:
            self._jump(request)

    def _is_end(self, request: Request, token: int) -> bool:
        """Whether the output ends with `token`, which comes next."""
        if request.grammar is not None and token in self._eos_ids:
            # Only the grammar let it through, whatever ignore_eos or min_tokens say: the text can
            # only end here.
            return True
        if token not in request.stop_ids or request.num_output < request.sampling.min_tokens:
            return False
        return request.grammar is None or request.grammar.can_finish

    def forced(self, grammar: GrammarState, tail: Sequence[int], budget: int) -> list[int]:
        """What follows without asking the model, where `tail` are a request's last FORCE_TAIL
        tokens and `budget` is how many it may still have. Changes nothing."""
        return grammar.forced_tokens(tail, budget) if self._jump_forward else []

    def _jump(self, request: Request) -> None:
        """Append what the grammar forces, as the tokenizer would write it."""
        if request.grammar is None:
            return
        budget = request.max_tokens - request.num_output
        for token in self.forced(request.grammar, request.tokens[-FORCE_TAIL:], budget):
            self._after(request, self._take(request, token, forced=True))
            if request.finish is not None:
                return

    def _replace(self, request: Request, tentative: Tentative, token: int) -> int:
        """`token` takes the place of all tentative tokens. Returns how many of its bytes are
        theirs."""
        text = tentative.text
        if not (self._token_bytes[token] or b"").startswith(text):
            raise EngineError(f"token {token} was drawn for a prompt that ends in {text!r}")
        request.tentative = None
        return len(text)

    def _take(
        self, request: Request, token: int, *, forced: bool = False, num_hidden: int = 0
    ) -> int:
        """Returns how many bytes `token` added to the output; `num_hidden` of its bytes are no
        output."""
        data = self._bytes(request, token)[num_hidden:]
        text = data if num_hidden else None
        if request.grammar is not None and not self._accept(request.grammar, token, text):
            raise EngineError(f"the grammar refused token {token}, which its own mask allowed")
        request.tokens.append(token)
        request.forced.append(forced)
        request.num_forced += forced
        request.output_bytes += data
        return len(data)

    @staticmethod
    def _accept(grammar: GrammarState, token: int, text: bytes | None) -> bool:
        """`text`: what there is of the token for the grammar, where that is not all of it."""
        return grammar.accept(token) if text is None else grammar.accept_text(text)

    def _bytes(self, request: Request, token: int) -> bytes:
        data = self._token_bytes[token]
        if data is not None:
            return data
        return b"" if request.sampling.skip_special_tokens else self._special_bytes.get(token, b"")

    def _after(self, request: Request, num_new_bytes: int) -> None:
        """Is this the end? Stop texts first, then the grammar's own end, then the budget."""
        self._find_stop(request, num_new_bytes)
        if request.finish is not None:
            return
        if request.grammar is not None and request.grammar.is_finished:
            request.finish = FinishReason(FinishKind.STOP)
        elif request.num_output >= request.max_tokens:
            request.finish = FinishReason(FinishKind.LENGTH)

    def _find_stop(self, request: Request, num_new_bytes: int) -> None:
        if request.num_output < request.sampling.min_tokens:
            return
        if request.min_bytes is None:
            request.min_bytes = len(request.output_bytes) - num_new_bytes
        if request.stops is None or not num_new_bytes:
            return
        keeps = request.sampling.no_stop_trim

        def is_allowed(start: int, end: int) -> bool:
            cut = end if keeps else start
            if request.min_bytes is None or end <= request.min_bytes:
                return False
            return request.grammar is None or request.grammar.grammar.matches(
                bytes(request.output_bytes[:cut])
            )

        match = request.stops.find(request.output_bytes, num_new_bytes, is_allowed)
        if match is not None:
            request.finish = FinishReason(FinishKind.STOP, matched=match.matched)
            request.cut = match.end if keeps else match.start
