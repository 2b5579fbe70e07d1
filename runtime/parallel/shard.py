"""What one rank of a model holds: its heads, its share of every matrix. Plain numbers and names.

    q, k, v, gate, up    split by outputs: each rank computes whole heads, and columns of the MLP
    o, down              split by inputs: each rank's product is one summand of the whole
    head                 split by the vocabulary
    embedding, norms     whole on every rank

So a layer needs two sums over the ranks and nothing else. The embedding is only looked up: split,
it would save memory (0.5 to 1 GB of a model with a large vocabulary) for a third kind of sum and
its latency in every step. The head is read whole in every step, and splitting it splits that time.
"""

from dataclasses import dataclass, replace

from ..errors import InvalidRequest
from ..models.config import LlamaConfig

_BY_OUTPUTS = ("gate_proj", "up_proj")
_BY_INPUTS = ("o_proj", "down_proj")


@dataclass(frozen=True)
class Part:
    """Of a tensor: rows `first_row` .. `first_row + rows - 1`, and columns alike (vectors have rows
    only). Rows beyond the tensor's end are zeros; `zeros`: all of it is."""

    first_row: int
    rows: int
    first_column: int = 0
    columns: int | None = None  # None: all
    zeros: bool = False


@dataclass(frozen=True)
class Shard:
    """Rank `rank` of `size`, of a model with this config."""

    whole: LlamaConfig
    rank: int
    size: int

    def __post_init__(self) -> None:
        _check_divisible(self.whole, self.size)

    @property
    def config(self) -> LlamaConfig:
        """The model that this rank computes: its own heads and inner columns, between layers whose
        width is the whole model's; its rows of the head as a matrix of their own."""
        return replace(
            self.whole,
            tie_embeddings=False,
            num_heads=self.whole.num_heads // self.size,
            num_kv_heads=max(self.whole.num_kv_heads // self.size, 1),
            intermediate_size=self.whole.intermediate_size // self.size,
        )

    @property
    def vocabulary_rows(self) -> int:
        """Rows of the head on each rank; those beyond the vocabulary are zeros."""
        return -(-self.whole.vocab_size // self.size)

    def part(self, name: str, shape: tuple[int, ...]) -> Part | None:
        """What this rank holds of the tensor with this (Hugging Face) name; None: all of it."""
        *_, module, kind = f"model.{name}".split(".")
        if module in ("q_proj", "k_proj", "v_proj"):
            return self._heads(module)
        if module in _BY_OUTPUTS:
            rows = shape[0] // self.size
            return Part(self.rank * rows, rows)
        if module in _BY_INPUTS and kind == "bias":  # once in the sum
            return Part(0, shape[0], zeros=self.rank > 0)
        if module in _BY_INPUTS:
            columns = shape[1] // self.size
            return Part(0, shape[0], self.rank * columns, columns)
        if module == "lm_head":
            return Part(self.rank * self.vocabulary_rows, self.vocabulary_rows)
        return None

    def _heads(self, module: str) -> Part:
        whole, mine = self.whole, self.config
        if module == "q_proj":
            first, count = self.rank * mine.num_heads, mine.num_heads
        else:  # fewer heads than ranks: several ranks hold the same one
            first, count = self.rank * whole.num_kv_heads // self.size, mine.num_kv_heads
        return Part(first * whole.head_dim, count * whole.head_dim)


def _check_divisible(config: LlamaConfig, size: int) -> None:
    """Raises InvalidRequest where the model cannot be cut into `size` equal parts."""
    for what, number in (
        ("attention heads", config.num_heads),
        ("inner columns of its MLP", config.intermediate_size),
    ):
        if number % size:
            raise _refusal(size, f"this model's {number} {what} are no multiple of it")
    if config.num_kv_heads % size and size % config.num_kv_heads:
        raise _refusal(
            size,
            f"this model's {config.num_kv_heads} key-value heads can be neither divided among "
            "so many processes nor repeated evenly",
        )


def _refusal(size: int, reason: str) -> InvalidRequest:
    return InvalidRequest(f"tensor_parallel: {size}: {reason}", field="tensor_parallel")
