"""What importing the constraints costs."""

import subprocess
import sys

import pytest

import sapwood.constrained


def test_the_plain_names_load_no_library():
    script = (
        "import sys, sapwood.constrained as c\n"
        "c.JsonSchema.of({'type': 'integer'}); c.dtype_constraint(int); c.CompileLimits()\n"
        "heavy = {'numpy', 'interegular', 'outlines_core', 'torch', 'transformers', 'tokenizers'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "c.GrammarCompiler, c.Vocabulary, c.CompiledGrammar, c.GrammarState\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == ["[]", "['numpy']"]


def test_every_public_name_is_there():
    for name in sapwood.constrained.__all__:
        assert getattr(sapwood.constrained, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Peg'"):
        _ = sapwood.constrained.Peg
