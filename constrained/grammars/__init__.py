"""Context-free grammars and structural tags, from their text to rules of a pushdown machine.

Owns: the dialects we read (`gbnf`, `lark`, `tags`), what a grammar says (`tree`, `formats`), and
its lowering (`lower`, `tag_lowering`). Knows neither tokens nor how a machine is run.
"""
