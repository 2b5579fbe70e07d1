"""A conversation that grows turn by turn, token-exactly: what was computed once is not computed
again.

Owns: the parts of the prompt so far. Knows no terminal.
"""

from collections.abc import Generator

from ..runtime.chat import ChatFormat
from ..runtime.client import Client
from ..runtime.protocol import (
    Chunk,
    GenerateRequest,
    Ids,
    Prompt,
    SamplingParams,
    Text,
    Usage,
)


class Conversation:
    """What was said so far. Written only by its own verbs; `usage` is the latest answer's."""

    def __init__(self, client: Client, chat: ChatFormat, sampling: SamplingParams) -> None:
        self._client = client
        self._chat = chat
        self._sampling = sampling
        self._parts: Prompt = ()
        self._roles: tuple[str, ...] = ()
        self.usage = Usage(0, 0, 0, 0)

    def reset(self) -> None:
        self._parts, self._roles = (), ()

    def say(self, role: str, text: str) -> None:
        """Add a message that is not the model's."""
        begin, end = self._chat.begin(self._roles, role), self._chat.end(self._roles, role)
        message = (Text(begin, special=True), Text(text), Text(end, special=True))
        self._parts += tuple(part for part in message if part.text)
        self._roles += (role,)

    def ask(self, text: str) -> Generator[str]:
        """The answer to a user's message, piece by piece.

        Closing the generator early stops the answer, and what has come stays in the conversation.
        Where nothing has come, refused or stopped, the conversation is as it was before.
        """
        before = (self._parts, self._roles)
        self.say("user", text)
        opening = self._chat.begin(self._roles, "assistant")
        prompt = (*self._parts, Text(opening, special=True)) if opening else self._parts
        chunks: list[Chunk] = []
        try:
            stream = self._client.generate(GenerateRequest(prompt, self._sampling))
            try:
                for chunk in stream:
                    chunks.append(chunk)
                    self.usage = chunk.usage
                    if chunk.text:
                        yield chunk.text
            finally:
                stream.close()
        finally:
            if chunks:
                self._take(chunks)
            else:
                self._parts, self._roles = before

    def _take(self, chunks: list[Chunk]) -> None:
        """Go on from the very tokens that were computed."""
        prompt_ids, last = chunks[0].prompt_ids or (), chunks[-1]
        produced = tuple(token for chunk in chunks for token in chunk.token_ids)
        ids = Ids(prompt_ids + (produced if last.finish is None else last.kept_ids))
        end = self._chat.end(self._roles, "assistant")
        texts = (Text(last.tail), Text(end, special=True))
        self._parts = (ids, *(part for part in texts if part.text))
        self._roles += ("assistant",)
