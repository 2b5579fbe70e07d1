"""What can go wrong with a constraint; owns the error tree, knows nothing of compilers.

ValueError
└── GrammarError          the constraint cannot be used; the message says where and why
    ├── Unsupported       valid, but a keyword or construct that we do not honour
    └── LimitExceeded     compiling it would take too long, too many states or too much memory
        └── Exponential   the automaton grows exponentially: no larger limit would help
"""


class GrammarError(ValueError):
    """The constraint cannot be compiled; the message names the pattern or keyword and why."""


class Unsupported(GrammarError):
    """The constraint uses something that is refused by name rather than ignored."""


class LimitExceeded(GrammarError):
    """Compiling the constraint passed a limit of time, states or memory."""


class Exponential(LimitExceeded):
    """The automaton grows exponentially with the constraint."""
