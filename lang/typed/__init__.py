"""Typed generation: from a Python type to a constraint, and from the text back to a value.

Owns: how values of a type are written, and what is refused. Knows no state, no step and no client;
pydantic is loaded when the first type is looked at.
"""

from .decoder import DecodeError, Decoder, decoder_of
from .values import expect

__all__ = ["DecodeError", "Decoder", "decoder_of", "expect"]
