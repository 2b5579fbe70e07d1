"""Pushdown machines over bytes: rules that read bytes, call each other, count and intersect.

Owns: how a machine is put together (`builder`), its flat form (`program`), and how it is run, in
Python (`machine`) and in C++ (`native`). Knows neither regexes, schemas nor tokenizers.
"""
