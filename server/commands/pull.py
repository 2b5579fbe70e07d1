"""`sapwood pull`: fetch a model's weights, or say where they already are."""

from argparse import ArgumentParser, Namespace

from .failure import CommandError


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        help="a known name or a hub id (default: smollm2-135m-instruct)",
    )


def run(args: Namespace) -> int:
    from ...runtime.models.source import ModelError, resolve_model

    try:
        path = resolve_model(args.model)
    except ModelError as error:
        raise CommandError(str(error)) from error
    print(path)
    return 0
