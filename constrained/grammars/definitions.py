"""The rules of a grammar while its text is read: each defined once, each reference defined."""

from .analysis import unproductive
from .scan import Scanner
from .tree import Expression, Grammar, Reference


class Definitions:
    """Written only by the parser that owns it. Places are offsets in the scanner's text."""

    def __init__(self, scanner: Scanner) -> None:
        self.rules: dict[str, Expression] = {}
        self._scanner = scanner
        self._defined_at: dict[str, int] = {}
        self._used_at: dict[str, int] = {}

    def define(self, name: str, expression: Expression, at: int) -> None:
        if name in self.rules:
            place = self._scanner.place(self._defined_at[name])
            self._scanner.fail(f"rule {name!r} is defined twice, first at {place}", at)
        self.rules[name] = expression
        self._defined_at[name] = at

    def reference(self, name: str, at: int) -> Reference:
        self._used_at.setdefault(name, at)
        return Reference(name)

    def fail(self, name: str, message: str) -> None:
        """Raises GrammarError with the place where `name` is defined."""
        self._scanner.fail(message, self._defined_at[name])

    def grammar(self, root: str) -> Grammar:
        """All rules; raises GrammarError where one is missing or reads no text."""
        for name, at in self._used_at.items():
            if name not in self.rules:
                self._scanner.fail(f"rule {name!r} is not defined", at)
        if root not in self.rules:
            self._scanner.fail(f"there is no rule {root!r}", 0)
        for group in unproductive(self.rules):
            way = ", ".join(group)
            why = f"each way through it leads back to it ({way})"
            self.fail(group[0], f"rule {group[0]!r} reads no text: {why}")
        return Grammar(root, self.rules)
