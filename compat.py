"""`sapwood.compat`: the name under which programs find the modules in `lang/compat/`.

Owns: that name. `import sapwood.compat.sglang` and `from sapwood.compat import sglang` give the one
module.
"""

import sys

from .lang.compat import sglang as sglang

sys.modules[f"{__name__}.sglang"] = sglang

__all__ = ["sglang"]
