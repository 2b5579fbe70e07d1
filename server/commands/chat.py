"""`sapwood chat`: talk to a model in the terminal, or line by line through a pipe.

Answers go to stdout, everything else to stderr. Ctrl-C stops the answer; at the prompt, the
program.
"""

import sys
from argparse import ArgumentParser, Namespace
from contextlib import closing
from dataclasses import replace
from time import perf_counter

from ...runtime.chat import chat_format
from ...runtime.errors import InvalidRequest
from ...runtime.native_format import renamed
from ..conversation import Conversation
from .engine_options import SAMPLING, add_engine_options, engine_config, launched, sampling_params
from .failure import CommandError

HELP = "/reset begins anew, /quit ends, Ctrl-C stops an answer"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--system", help="a system message")
    parser.add_argument("--temperature", type=float, default=0.7, help="0: greedy (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=512, help="of an answer (%(default)s)")
    parser.add_argument("--seed", type=int, help="the same answers each time")
    add_engine_options(parser)


def run(args: Namespace) -> int:
    sampling = sampling_params(args)
    with closing(launched(engine_config(args))) as client:
        info = client.info()
        chat = chat_format(info.chat_template, info.special_tokens, info.model)
        if info.chat_template is None:
            # Such a model speaks in plain lines and would write the user's next one.
            sampling = replace(sampling, stop=("\nUSER:",))
        conversation = Conversation(client, chat, sampling)
        _note(f"{info.model}. {HELP}.")
        talk(conversation, args.system)
    return 0


def talk(conversation: Conversation, system: str | None) -> None:
    """Read messages until the end of the input or /quit. Through a pipe the first message that
    fails ends it: what follows may build on its answer."""
    begin_anew(conversation, system)
    while True:
        try:
            message = _read()
        except (EOFError, KeyboardInterrupt):
            break
        except UnicodeDecodeError:
            if not sys.stdin.isatty():
                raise CommandError("the input is not UTF-8") from None
            _note("the input is not UTF-8")
            continue
        match message.strip():
            case "":
                continue
            case "/quit" | "/exit":
                break
            case "/reset":
                begin_anew(conversation, system)
                _note("a new conversation")
            case word if word.startswith("/"):
                _note(f"there is no {word.split()[0]}: {HELP}")
            case _:
                answer(conversation, message)


def begin_anew(conversation: Conversation, system: str | None) -> None:
    conversation.reset()
    if system is not None:
        conversation.say("system", system)


def answer(conversation: Conversation, message: str) -> None:
    """One turn, shown as it grows."""
    begin = perf_counter()
    pieces = conversation.ask(message)
    try:
        with closing(pieces):
            for piece in pieces:
                print(piece, end="", flush=True)
    except InvalidRequest as raised:
        error = renamed(raised, SAMPLING)
        if not sys.stdin.isatty():
            raise error from None
        _note(f"{error} (/reset begins anew)")
        return
    except KeyboardInterrupt:
        print(flush=True)
        _note("stopped")
        return
    print(flush=True)
    usage = conversation.usage
    rate = usage.completion_tokens / max(perf_counter() - begin, 1e-9)
    _note(
        f"{usage.completion_tokens} tokens, {rate:.1f} tok/s; "
        f"{usage.cached_tokens} of {usage.prompt_tokens} prompt tokens reused"
    )


def _read() -> str:
    if sys.stdin.isatty():
        import readline  # noqa: F401 - importing it gives `input` its history and line editing

        return input("> ")
    line = sys.stdin.buffer.readline()  # decoded line by line: the lines before a bad one are read
    if not line:
        raise EOFError
    return line.decode().rstrip("\r\n")


def _note(text: str) -> None:
    shown = f"\033[2m{text}\033[0m" if sys.stderr.isatty() else text
    print(shown, file=sys.stderr, flush=True)
