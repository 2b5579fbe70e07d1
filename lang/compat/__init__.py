"""Other systems' names for what is here. `sglang` is SGLang's; find it as `sapwood.compat.sglang`.

Owns: names and shapes, no behaviour of the language.
"""
