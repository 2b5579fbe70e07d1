"""Checks of programs that run nothing: rules over graphs (`rules`), and what a check reports."""
