"""Steps: what an executor runs. Frozen and resolved: no defaults, roles or names left to look up.

Owns: the hand-over between `branch` (which makes steps as the program speaks) and `executor`, but
for the step that forks, which names executors and so lives with them.
"""

from dataclasses import dataclass

from ..runtime.protocol import LogprobOptions, SamplingParams
from .choices import ChoicesMethod
from .reasoning import ReasoningFormat
from .speculative import Form
from .transcript import Mark
from .typed import Decoder
from .variables import Variable


@dataclass(frozen=True)
class AddText:
    text: str
    special: bool = False


@dataclass(frozen=True)
class Generate:
    """`path`: this generation's random path. `timeout`: seconds from when it is sent. `heal`: see
    `GenerateRequest`; only text that the program itself said last is healed."""

    variable: Variable
    sampling: SamplingParams
    logprobs: LogprobOptions | None
    path: tuple[int, ...]
    location: str | None
    decoder: Decoder | None = None
    timeout: float | None = None
    heal: bool = False


@dataclass(frozen=True)
class Score:
    variable: Variable
    options: tuple[str, ...]
    method: ChoicesMethod
    location: str | None
    timeout: float | None = None
    early_stop: bool = False


@dataclass(frozen=True)
class Fill:
    """A whole message of a remote model's, asked for at once: see `speculative`. `timeout`: seconds
    from when it is first sent."""

    form: Form
    sampling: SamplingParams
    path: tuple[int, ...]
    location: str | None
    timeout: float | None = None


@dataclass(frozen=True)
class AddMessage:
    """A message whose text is already said, by the template itself."""

    role: str
    content: str


@dataclass(frozen=True)
class OpenMessage:
    role: str


@dataclass(frozen=True)
class CloseMessage:
    role: str


@dataclass
class Scope:
    """Shared by its two steps: where the scope's text begins. Written by the executor."""

    start: int = 0


@dataclass(frozen=True)
class OpenScope:
    scope: Scope


@dataclass(frozen=True)
class CloseScope:
    scope: Scope
    variable: Variable


@dataclass
class Place:
    """Shared by its two steps: where reasoning may begin. Written by the executor."""

    mark: Mark | None = None


@dataclass(frozen=True)
class BeginReasoning:
    place: Place


@dataclass(frozen=True)
class EndReasoning:
    """What `whole` holds by now is split into the other two; of it only the answer stays said."""

    place: Place
    whole: Variable
    answer: Variable
    reasoning: Variable
    format: ReasoningFormat


TextStep = (
    AddText
    | AddMessage
    | OpenMessage
    | CloseMessage
    | OpenScope
    | CloseScope
    | BeginReasoning
    | EndReasoning
)
"""Steps that end at once."""
