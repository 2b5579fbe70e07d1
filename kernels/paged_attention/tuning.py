"""Tile sizes of the attention kernels, by what bounds them. Knows no lengths.

All of it follows from compiled code (registers, shared memory, what is under way at a time); none
of it is measured.
"""

from dataclasses import dataclass

from ..kv_pages import KVPages


@dataclass(frozen=True)
class Tile:
    """block_keys divides every split."""

    block_keys: int
    num_warps: int
    num_stages: int


def short_tiles(pages: KVPages) -> Tile:
    """Decode is bound by memory: two or three tiles of up to 16 KiB of keys, and as many of values,
    are under way in each of two to four programs on a multiprocessor."""
    if _is_wide(pages):
        return Tile(32, 8, 3)
    if pages.k_scales is not None:
        return Tile(32, 4, 4)  # widening takes registers
    return Tile(64, 4, 4 if pages.head_dim <= 64 else 3)


def long_tiles(pages: KVPages, tile_rows: int) -> Tile:
    """Extend is bound by the tensor cores: a warp holds in registers what it gathers for 16 rows of
    the tile and their scores. Rows of more than 256 bytes are shared by two warps."""
    if _is_wide(pages):
        return Tile(32, 8, 2)
    num_warps = 8 if tile_rows == 128 else 4
    if pages.k_scales is not None:
        return Tile(32, num_warps, 3)
    return Tile(64, num_warps, 3)


def _is_wide(pages: KVPages) -> bool:
    return pages.head_dim > 128 or pages.k.element_size() == 4
