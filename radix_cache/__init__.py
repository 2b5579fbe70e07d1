"""Prefix reuse: tokens in, page numbers out. Knows nothing of tensors, requests or models."""

from .cache import PrefixCache
from .lease import PartialPage, PrefixMatch
from .pages import OutOfPages

__all__ = ["OutOfPages", "PartialPage", "PrefixCache", "PrefixMatch"]
