"""Expressions beside `gen`, `select` and roles: reasoning kept apart, images and videos.

Owns: their signatures and the refusal of what they cannot hold. Knows no state.
"""

from ..runtime.errors import InvalidRequest
from .nodes import Expression, Gen, Media, Node, Reasoning, sequence
from .reasoning import reasoning_format


def separate_reasoning(expr: Expression | None = None, model_type: str | None = None) -> Node:
    """`expr` with the reasoning of its gens taken out of the text.

    Variable `x` holds the answer alone, `x_reasoning_content` the reasoning; so do the messages and
    whatever is generated next. `model_type` names the family whose marks are looked for:
    deepseek-r1, deepseek-v3, glm45, kimi, mistral, qwen3, qwen3-thinking or step3. In a run with
    `stream=True` nothing is separated.
    """
    if not isinstance(expr, str | Node):
        raise InvalidRequest(
            f"expr: {expr!r}: separate_reasoning needs text or an expression", field="expr"
        )
    format = reasoning_format(model_type)
    items = sequence(expr).items
    for item in items:
        if isinstance(item, Gen) and item.name is None:
            raise InvalidRequest("name: a gen whose reasoning is separated needs one", field="name")
        if isinstance(item, Gen) and item.decoder is not None:
            raise InvalidRequest(
                f"type: {item.decoder.name}: a text of this type has no room for reasoning",
                field="type",
            )
    return Reasoning(items, format)


def image(expr: object) -> Node:
    """An image, by its path or its bytes. Refused, when added, by a model without vision."""
    if not isinstance(expr, str | bytes):
        raise InvalidRequest(f"image: {expr!r} is neither a path nor bytes", field="image")
    return Media("image", _shown(expr))


def video(path: str, num_frames: int) -> Node:
    """`num_frames` frames of a video. Refused, when added, by a model without vision."""
    if not isinstance(path, str):
        raise InvalidRequest(f"video: {path!r} is not a path", field="video")
    if isinstance(num_frames, bool) or not isinstance(num_frames, int) or num_frames < 1:
        raise InvalidRequest(
            f"num_frames: {num_frames!r} is not a positive integer", field="num_frames"
        )
    return Media("video", path)


def _shown(source: str | bytes) -> str:
    return source if isinstance(source, str) else f"{len(source)} bytes"
