"""The regexes that SGLang's dtypes stand for, as texts."""

from ...runtime.protocol import dtype_constraint

REGEX_INT = dtype_constraint("int").pattern
REGEX_FLOAT = dtype_constraint("float").pattern
REGEX_BOOL = dtype_constraint("bool").pattern
REGEX_STR = dtype_constraint("str").pattern
"""Any text in double quotes with JSON's escapes, where SGLang's own holds words and blanks only."""
