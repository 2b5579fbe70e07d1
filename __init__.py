"""Sapwood: programs with gen, select and fork over one radix tree of KV pages."""

__version__ = "0.1.0"
