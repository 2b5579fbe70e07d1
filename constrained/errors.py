"""What can go wrong with a constraint; owns the error tree, knows nothing of compilers.

ValueError
└── GrammarError          the constraint cannot be used; the message says where and why
    ├── Unsupported       valid, but a keyword or construct that we do not honour
    └── LimitExceeded     it takes too long, or too many states, to compile or to use
"""


class GrammarError(ValueError):
    """The constraint cannot be compiled; the message names the pattern or keyword and why."""


class Unsupported(GrammarError):
    """The constraint uses something that is refused by name rather than ignored."""


class LimitExceeded(GrammarError):
    """Compiling or using the constraint passed a limit of time or states."""
