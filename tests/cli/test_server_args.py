"""The command line that `ServerArgs` makes, read again by the server's own options."""

from argparse import ArgumentParser

import pytest

from sapwood.lang.backends.server_args import ServerArgs
from sapwood.runtime.config import CacheOptions, DeviceOptions, EngineConfig, ModelOptions
from sapwood.server.commands.engine_options import add_engine_options, engine_config


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, EngineConfig()),
        ({"model_path": "x", "dtype": "bf16"}, EngineConfig(ModelOptions("x", "bf16"))),
        ({"max_total_tokens": 64}, EngineConfig(cache=CacheOptions(64))),
        (
            {"device": "cpu", "tp_size": 2},
            EngineConfig(device=DeviceOptions("cpu", None, None, True, 2)),
        ),
        (
            {"mem_fraction_static": 0.5, "disable_cuda_graph": True},
            EngineConfig(device=DeviceOptions("auto", 0.5, False)),
        ),
    ],
)
def test_a_server_gets_the_engine_that_was_asked_for(
    options: dict[str, object], expected: EngineConfig
) -> None:
    parser = ArgumentParser()
    add_engine_options(parser)
    command = ServerArgs.of(**options).command()
    args, _ = parser.parse_known_args(command[command.index("serve") + 1 :])
    assert engine_config(args) == expected
