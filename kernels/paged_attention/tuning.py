"""Tile sizes of the attention kernels, by what bounds them. Knows no lengths."""

from dataclasses import dataclass

from ..kv_pages import KVPages


@dataclass(frozen=True)
class Tile:
    """block_keys divides every split."""

    block_keys: int
    num_warps: int
    num_stages: int


def short_tiles(pages: KVPages, tile_rows: int) -> Tile:
    """Decode is bound by memory: what counts is bytes under way, so three stages of about 16 KiB of
    keys and as many of values. Not measured."""
    row_bytes = pages.head_dim * pages.k.element_size()
    return Tile(64 if row_bytes <= 256 else 32, num_warps=4, num_stages=3)


def long_tiles(pages: KVPages, tile_rows: int) -> Tile:
    """Extend is bound by the tensor cores: one warp for each 16 rows of the tile, which holds in
    registers what it gathers and its scores. Not measured."""
    row_bytes = pages.head_dim * pages.k.element_size()
    num_warps = 8 if tile_rows == 128 else 4
    return Tile(64 if row_bytes <= 256 else 32, num_warps, num_stages=3 if row_bytes <= 256 else 2)
