"""Everything around a backend runs without torch: a process that computes natively never loads
it."""

import subprocess
import sys

PROGRAM = """
import sys

from sapwood.constrained import Regex
from sapwood.kernels.sample.philox import uniforms
from sapwood.runtime import engine, engine_process, launch, local, loop
from sapwood.runtime.batch import Batch, StepResult
from sapwood.runtime.backend import Landed
from sapwood.runtime.config import EngineConfig, resolve
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.models.weights import expected_shapes, open_checkpoint, read_float32
from sapwood.runtime.page_table import PageTable
from sapwood.runtime.protocol import SamplingParams
from sapwood.runtime.text import TextCodec
from sapwood.runtime.tokenizer import load_tokenizer
from sapwood.runtime.wire import TokenRequest

path = resolve_model(None)
files = load_tokenizer(path)
with open_checkpoint(path) as checkpoint:
    config = checkpoint.config
    for name in expected_shapes(config):
        assert checkpoint.raw(name).dtype == "uint8"
    read_float32(checkpoint, "model.layers.0.self_attn.q_proj.weight")


class Backend:
    config, dtype, bytes_per_token, row_cost = config, "float32", 1 << 15, 0.1
    overlaps = False

    def build(self, resolved):
        self.table = PageTable(
            resolved.schedule.max_running, resolved.pages_per_request, resolved.page_size
        )
        return self

    def launch(self, batch):
        self.table.write(batch.page_writes)
        self.batch = batch
        raise KeyboardInterrupt  # a step was planned: what follows is the backend's

    def close(self):
        pass


backend = Backend()
resolved = resolve(
    EngineConfig(),
    dtype="float32",
    checkpoint_context=config.context_length,
    bytes_per_token=1 << 15,
    free_bytes=1 << 28,
)
engine_loop = loop.assemble(backend, files, resolved)
TextCodec(files, engine_loop.info)
params = SamplingParams(constraint=Regex("[a-c]+"), temperature=0.7)
engine_loop.submit(TokenRequest("a", (1, 2, 3), params, 0, None, ""))
try:
    while engine_loop.has_work:
        engine_loop.step()
except KeyboardInterrupt:
    pass
engine_loop.close()
assert len(backend.batch.spans[0].token_ids) == 3
assert uniforms([1], [2]).shape == (1,)
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "transformers", "triton"}))
"""


def test_an_engine_but_for_its_backend_never_imports_torch() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
