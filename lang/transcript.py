"""What a branch has said so far, token-exactly.

Owns: the ids that the engine has confirmed, the text after them that is still to be tokenized, and
the same history as text and as messages. Written only by the branch's executor. Knows no tokenizer:

    |<-------- ids -------->|<---- tail: texts ---->|
     confirmed by the engine  not yet sent

Every generation sends `ids + tail`; its answer turns both into ids, so no text is tokenized twice.
"""

from dataclasses import dataclass, field, replace

from ..runtime.protocol import Ids, Prompt, Text, Turn

Message = dict[str, str]


@dataclass(frozen=True)
class Mark:
    """A place in a transcript, to which `rewind` goes back."""

    ids: tuple[int, ...]
    tail: tuple[Text, ...]
    num_pieces: int


@dataclass
class Transcript:
    """`pieces` is the whole text in order; `special` marks template text."""

    ids: tuple[int, ...] = ()
    tail: list[Text] = field(default_factory=list)
    pieces: list[Text] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    message_start: int = 0  # index into pieces: where the open message's own text begins
    open_role: str | None = None
    open_end: bool = False  # it ends in text of the program's own, perhaps inside a word

    def copy(self) -> "Transcript":
        return replace(
            self, tail=list(self.tail), pieces=list(self.pieces), messages=list(self.messages)
        )

    def prompt(self) -> Prompt:
        return (Ids(self.ids), *self.tail) if self.ids else tuple(self.tail)

    def append(self, text: str, *, special: bool = False) -> None:
        """Text that the engine has not seen; it merges with the tail's last text of its kind."""
        self.show(text, special=special)
        self.extend(text, special=special)
        self.open_end = not special if text else self.open_end

    def extend(self, text: str, *, special: bool = False) -> None:
        """Text that is shown already, but that no ids stand for yet."""
        if not text:
            return
        self.open_end = False
        if self.tail and self.tail[-1].special == special:
            self.tail[-1] = Text(self.tail[-1].text + text, special)
        else:
            self.tail.append(Text(text, special))

    def show(self, text: str, *, special: bool = False) -> None:
        """Text that is already part of the ids, or will be when `settle` is called."""
        if text:
            self.pieces.append(Text(text, special))

    def settle(self, ids: tuple[int, ...], tail: str = "") -> None:
        """The engine's answer: from here on the history is `ids` and then `tail`."""
        self.ids = ids
        self.tail = [Text(tail)] if tail else []
        self.open_end = False

    def mark(self) -> Mark:
        return Mark(self.ids, tuple(self.tail), len(self.pieces))

    def rewind(self, mark: Mark) -> None:
        """Unsay what was said since."""
        self.ids, self.tail, self.open_end = mark.ids, list(mark.tail), False
        del self.pieces[mark.num_pieces :]

    def turns(self) -> tuple[Turn, ...]:
        """The conversation: the finished messages and what there is of the open one."""
        turns = [Turn(message["role"], message["content"]) for message in self.messages]
        if self.open_role is not None:
            turns.append(Turn(self.open_role, self.text(self.message_start)))
        return tuple(turns)

    def text(self, start: int = 0) -> str:
        return "".join(piece.text for piece in self.pieces[start:])

    def end_of_text(self, num_chars: int, num_pieces: int | None = None) -> str:
        """The last characters (of the first `num_pieces`), without joining the whole text."""
        taken: list[str] = []
        missing = num_chars
        for piece in reversed(self.pieces[:num_pieces]):
            if missing <= 0:
                break
            taken.append(piece.text[-missing:])
            missing -= len(piece.text)
        return "".join(reversed(taken))
