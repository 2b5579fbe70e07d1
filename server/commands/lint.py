"""`sapwood lint FILE...`: check programs before they run, for people, for CI and for code hosts.

Owns: the files, the format of the output and the exit status: 0 nothing found, 1 something found, 2
a file that cannot be read or is no Python.
"""

import sys
import tokenize
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...lang.lint.checker import Check
from ...lang.lint.findings import Finding
from ...lang.lint.report import as_json, as_text
from ...lang.lint.sarif import as_sarif
from ...lang.lint.subject import Tokens
from ...runtime.errors import InvalidRequest
from ..version import VERSION
from .failure import CommandError, Parser

FORMATS = ("text", "json", "sarif")


def add_arguments(parser: Parser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, or a folder of them")
    parser.add_argument("--format", choices=FORMATS, default="text", help="(%(default)s)")
    parser.add_argument("--select", default="", metavar="CODES", help="only these, as SW001,SW007")
    parser.add_argument("--ignore", default="", metavar="CODES", help="all rules but these")
    parser.add_argument("--model", help="count tokens exactly, by this model's tokenizer")


def run(args: Namespace) -> int:
    tokens = Tokens() if args.model is None else exact_tokens(args.model)
    try:
        check = Check.of(_listed(args.select), _listed(args.ignore), tokens)
    except InvalidRequest as error:
        raise CommandError(f"lint: --{error}", 2) from None
    findings: list[Finding] = []
    unread: list[str] = []
    for path in _files(args.files):
        try:
            findings += check.source(_text(path), str(path))
        except OSError as error:  # a link to nowhere, say: the other files are checked all the same
            unread.append(f"{path}: {error.strerror}")
        except (SyntaxError, ValueError) as error:  # ValueError: a NUL in the source
            line = getattr(error, "lineno", None)
            unread.append(f"{path}:{line or 1}: {getattr(error, 'msg', error)}")
    sys.stdout.write(_shown(args.format, findings, check))
    if unread:
        sys.stdout.flush()
        raise CommandError("; ".join(unread), 2)
    return 1 if findings else 0


def _listed(codes: str) -> list[str]:
    return [code.strip() for code in codes.split(",") if code.strip()]


def _files(names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        path = Path(name)
        if path.is_dir():
            yield from sorted(path.rglob("*.py"))
        elif path.is_file():
            yield path
        else:
            raise CommandError(f"{name}: no such file or folder", 2)


def _text(path: Path) -> str:
    """By the encoding that the file declares, as Python reads it."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise SyntaxError(f"the file is not {error.encoding}") from None


def _shown(form: str, findings: list[Finding], check: Check) -> str:
    match form:
        case "json":
            return as_json(findings)
        case "sarif":
            return as_sarif(findings, check.rules, VERSION)
        case _:
            return as_text(findings)


def exact_tokens(model: str) -> Tokens:
    """The model's own tokenizer; only its files are read."""
    from ...runtime.models.source import resolve_model
    from ...runtime.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(resolve_model(model)).tokenizer
    return Tokens(lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids))
