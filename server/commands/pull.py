"""`sapwood pull`: fetch a model's weights, or say where they already are."""

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        help="a known name or a hub id (default: smollm2-135m-instruct)",
    )


def run(args: Namespace) -> int:
    from ...runtime.models.source import resolve_model

    print(resolve_model(args.model))
    return 0
