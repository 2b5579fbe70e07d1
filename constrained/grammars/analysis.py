"""Facts about the rules of a grammar; knows neither syntax nor automata."""

from collections.abc import Callable, Iterable, Mapping, Set

from .tree import (
    Either,
    Expression,
    Pattern,
    Reference,
    Repeated,
    Rules,
    Schema,
    Sequence,
    Text,
    references,
)


def unproductive(rules: Rules) -> list[tuple[str, ...]]:
    """The rules that read no text: groups that each lead back to themselves."""
    known = _least(rules, is_productive)
    graph = {
        name: set(references(expression)) - known
        for name, expression in rules.items()
        if name not in known
    }
    return cycles(graph)


def nullable_rules(rules: Rules) -> set[str]:
    """The rules that read the empty text."""
    return _least(rules, is_nullable)


def is_nullable(expression: Expression, known: Set[str]) -> bool:
    """Whether it reads the empty text, where the rules in `known` do."""
    match expression:
        case Text(text):
            return not text
        case Pattern():
            return expression.nullable
        case Schema():
            return False
        case Reference(name):
            return name in known
        case Sequence(parts):
            return all(is_nullable(part, known) for part in parts)
        case Either(options):
            return any(is_nullable(option, known) for option in options)
        case Repeated(body, low):
            return low == 0 or is_nullable(body, known)


def is_productive(expression: Expression, known: Set[str]) -> bool:
    """Whether it reads a text, where the rules in `known` do."""
    match expression:
        case Text() | Pattern() | Schema():
            return True
        case Reference(name):
            return name in known
        case Sequence(parts):
            return all(is_productive(part, known) for part in parts)
        case Either(options):
            return any(is_productive(option, known) for option in options)
        case Repeated(body, low):
            return low == 0 or is_productive(body, known)


def _least(rules: Rules, holds: Callable[[Expression, Set[str]], bool]) -> set[str]:
    """The names for which `holds`, from none up."""
    users: dict[str, set[str]] = {name: set() for name in rules}
    for name, expression in rules.items():
        for used in references(expression):
            users[used].add(name)
    known: set[str] = set()
    work = list(rules)
    while work:
        name = work.pop()
        if name not in known and holds(rules[name], known):
            known.add(name)
            work += users[name]
    return known


def left_cycles(rules: Rules, nullable: Set[str]) -> dict[str, tuple[str, ...]]:
    """For each rule that may call itself before anything is read: the rules that may call it so
    and that it may call so, itself among them."""
    graph = {name: set(_first(expression, nullable)) for name, expression in rules.items()}
    return {name: group for group in cycles(graph) for name in group}


def _first(expression: Expression, nullable: Set[str]) -> Iterable[str]:
    """The rules that it may call first."""
    match expression:
        case Reference(name):
            yield name
        case Either(options):
            for option in options:
                yield from _first(option, nullable)
        case Repeated(body):
            yield from _first(body, nullable)
        case Sequence(parts):
            for part in parts:
                yield from _first(part, nullable)
                if not is_nullable(part, nullable):
                    return


def cycles(graph: Mapping[str, Set[str]]) -> list[tuple[str, ...]]:
    """The groups of names that lead to each other."""
    return [group for group in components(graph) if len(group) > 1 or group[0] in graph[group[0]]]


def components(graph: Mapping[str, Set[str]]) -> list[tuple[str, ...]]:
    """Names that lead to each other, group by group; a group comes after those it leads to."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_names: dict[str, None] = {}
    found: list[tuple[str, ...]] = []
    for root in graph:
        if root in order:
            continue
        order[root] = lowest[root] = len(order)
        open_names[root] = None
        stack = [(root, iter(sorted(graph[root])))]
        while stack:
            name, ways = stack[-1]
            for reached in ways:
                if reached not in order:
                    order[reached] = lowest[reached] = len(order)
                    open_names[reached] = None
                    stack.append((reached, iter(sorted(graph[reached]))))
                    break
                if reached in open_names:
                    lowest[name] = min(lowest[name], order[reached])
            else:
                stack.pop()
                if stack:
                    below = stack[-1][0]
                    lowest[below] = min(lowest[below], lowest[name])
                if lowest[name] == order[name]:
                    group: list[str] = []
                    while not group or group[-1] != name:
                        group.append(open_names.popitem()[0])
                    found.append(tuple(reversed(group)))
    return found
