"""Regular parts of a grammar as regexes, so that they become plain states and not calls."""

from typing import Final

from ..regexes import tree as regexes
from .analysis import components
from .tree import (
    Either,
    Expression,
    Pattern,
    Reference,
    Repeated,
    Rules,
    Sequence,
    Text,
    bare,
    either,
    references,
    repeated,
    sequence,
)

INLINED: Final = 32
"""A rule whose regex has at most so many nodes is written out where it is called."""


def folded(rules: Rules) -> dict[str, Expression]:
    """Rules that read the same, without `Text`: what is regular has become a `Pattern`."""
    graph = {name: set(references(expression)) for name, expression in rules.items()}
    small: dict[str, Pattern] = {}
    found: dict[str, Expression] = {}
    for group in components(graph):
        for name in group:
            found[name] = made = _fold(rules[name], small)
            if isinstance(made, Pattern) and made.regex.bare and _size(made.regex) <= INLINED:
                small[name] = made
    return found


def _fold(expression: Expression, small: dict[str, Pattern]) -> Expression:
    match expression:
        case Text(text):
            return bare(regexes.sequence(regexes.literal(ord(letter)) for letter in text))
        case Reference(name):
            return small.get(name, expression)
        case Sequence(parts):
            return _sequence([_fold(part, small) for part in parts])
        case Either(options):
            return _either([_fold(option, small) for option in options])
        case Repeated(body, low, high):
            inner = _fold(body, small)
            if isinstance(inner, Pattern) and inner.regex.bare:
                return bare(regexes.repeated(inner.regex, low, high))
            return repeated(inner, low, high)
        case _:
            return expression


def _sequence(parts: list[Expression]) -> Expression:
    """Regexes that follow each other become one."""
    joined: list[Expression] = []
    run: list[regexes.Node] = []
    flat = sequence(parts)
    for part in flat.parts if isinstance(flat, Sequence) else (flat,):
        if isinstance(part, Pattern) and part.regex.bare:
            run.append(part.regex)
            continue
        if run:
            joined.append(bare(regexes.sequence(run)))
            run = []
        joined.append(part)
    if run or not joined:
        joined.append(bare(regexes.sequence(run)))
    return sequence(joined)


def _either(options: list[Expression]) -> Expression:
    flat = either(options)
    plain: list[regexes.Node] = []
    others: list[Expression] = []
    for option in flat.options if isinstance(flat, Either) else (flat,):
        if isinstance(option, Pattern) and option.regex.bare:
            plain.append(option.regex)
        else:
            others.append(option)
    if plain:
        others.append(bare(regexes.either(plain)))
    return either(others)


def _size(regex: regexes.Node) -> int:
    return 1 + sum(_size(child) for child in regex.children)
