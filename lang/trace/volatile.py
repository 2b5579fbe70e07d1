"""Which functions of Python's library answer differently from run to run, and why."""

from typing import Final

_CLOCK: Final = "the clock"
_RANDOM: Final = "a random draw"
_FOLDER: Final = "the order of a folder's files"

_MODULES: Final = {
    "random": (
        _RANDOM,
        "betavariate choice choices gauss getrandbits randbytes randint random randrange sample "
        "shuffle triangular uniform SystemRandom",
    ),
    "numpy.random": (_RANDOM, "choice normal permutation rand randint randn random uniform"),
    "secrets": (_RANDOM, "choice randbelow randbits token_bytes token_hex token_urlsafe"),
    "uuid": ("a new id", "uuid1 uuid4 uuid6 uuid7"),
    "os": ("the process", "getpid urandom times"),
    "tempfile": ("a new id", "mkdtemp mkstemp mktemp"),
    "time": (_CLOCK, "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns ctime "
             "asctime localtime gmtime strftime"),
    "datetime.datetime": (_CLOCK, "now today utcnow"),
    "datetime.date": (_CLOCK, "today"),
    "builtins": ("the place of an object in memory", "id"),
}  # fmt: skip
_REASONS: Final = {
    f"{module}.{name}": reason
    for module, (reason, names) in _MODULES.items()
    for name in names.split()
} | {"builtins.hash": "the seed of hashes"}
_OF_A_GIVEN_TIME: Final = {  # they tell the clock's time only where they are given no other
    "time.strftime": 2,
    "time.ctime": 1,
    "time.asctime": 1,
    "time.localtime": 1,
    "time.gmtime": 1,
}
_UNORDERED: Final = {
    "os.listdir": _FOLDER,
    "os.scandir": _FOLDER,
    "os.walk": _FOLDER,
    "glob.glob": _FOLDER,
    "glob.iglob": _FOLDER,
    "builtins.set": "the order of a set",
    "builtins.frozenset": "the order of a set",
}
UNORDERED_METHODS: Final = {"iterdir": _FOLDER, "rglob": _FOLDER}


def reason(function: str, num_arguments: int) -> str | None:
    """Why what this function returns differs from run to run; None: as far as is known not."""
    if num_arguments >= _OF_A_GIVEN_TIME.get(function, num_arguments + 1):
        return None
    return _REASONS.get(function)


def disorder(function: str) -> str | None:
    """Why what this function returns has no fixed order."""
    return _UNORDERED.get(function)
