"""The benchmark of the peers is a folder of scripts: its modules are found as its scripts find
them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))
