"""What `PrefixCache.acquire` hands out: a match that is locked for as long as the lease lives."""

from dataclasses import dataclass, field

from .node import RadixNode


@dataclass(frozen=True, slots=True)
class PartialPage:
    """The match goes on for `num_tokens` tokens (1 to page_size - 1) inside page `source`.

    `source` belongs to the tree: copy it into the request's first own page, never write it.
    """

    source: int
    num_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class PrefixMatch:
    """A lease on a cached prefix; it ends with one `commit`, `finish` or `release`.

    `num_tokens` leading tokens are held: `pages` are full and shared (`num_tokens // page_size`
    of them), and `partial`, if any, says where the rest lies. No page named here can be evicted
    while the lease lives.
    """

    num_tokens: int
    pages: tuple[int, ...]
    partial: PartialPage | None
    _node: RadixNode = field(repr=False)
    _source: RadixNode | None = field(repr=False)
