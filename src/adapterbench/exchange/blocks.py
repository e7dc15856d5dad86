"""diffusers' dictionaries of blocks: `{"down": {"block_2": [0.0, 1.0]}, "up": 0.5, "mid": 1.0}`.

As in `set_ip_adapter_scale`: what is left out gets 0, a number applies to everything below it, and
a list has one number per attention of a block (a list of one applies to all).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from adapterbench.core.errors import UserError

SIDES = ("down", "mid", "up")
PATH = re.compile(r"(down|mid|up)_blocks?(?:\.(\d+))?\.attentions\.(\d+)\.")
"""diffusers' path of a cross-attention layer: side, block, attention."""
Place = tuple[str, str, int]
"""Such as `("up", "block_0", 1)`; the one block of the middle is `block_0`, too."""


def by_layer(blocks: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """lambda by the path of the layer.

    Args:
        blocks: see the module.
        paths: of the UNet's cross-attention layers.

    Raises:
        UserError: the UNet lacks a block, or a list has another length.
    """
    places = {path: place(path) for path in paths}
    sizes = attentions(places.values())
    check_blocks(blocks, sizes)
    scales = {}
    for path, (side, block, number) in places.items():
        value = blocks.get(side, 0.0)
        if isinstance(value, Mapping):
            value = value.get(block, 0.0)
        scales[path] = entry(value, number, sizes[side][block], f"{side}.{block}")
    return scales


def place(path: str) -> Place:
    """Side, block and attention of a layer."""
    match = PATH.match(path)
    if match is None:
        raise UserError(
            f"the layer {path} is not in diffusers' blocks: give scale as a mapping from the "
            "paths of layers"
        )
    side, block, number = match.groups()
    return side, f"block_{block or 0}", int(number)


def attentions(places: Iterable[Place]) -> dict[str, dict[str, int]]:
    """Number of attentions of each block, such as `{"up": {"block_0": 3}}`."""
    sizes: dict[str, dict[str, int]] = {}
    for side, block, number in places:
        blocks = sizes.setdefault(side, {})
        blocks[block] = max(blocks.get(block, 0), number + 1)
    return sizes


def check_blocks(blocks: Mapping[str, Any], sizes: Mapping[str, Mapping[str, int]]) -> None:
    """Check that the UNet has all blocks of a dictionary.

    Raises:
        UserError: it lacks one.
    """
    named = [(str(side),) for side in blocks] + [
        (str(side), str(block))
        for side, inner in blocks.items()
        if isinstance(inner, Mapping)
        for block in inner
    ]
    known = {(side,) for side in sizes} | {
        (side, block) for side, inner in sizes.items() if side != "mid" for block in inner
    }
    if unknown := [name for name in named if name not in known]:
        names = ", ".join(".".join(name) for name in sorted(known))
        raise UserError(f"no block {'.'.join(unknown[0])!r} to scale (blocks: {names})")


def entry(value: Any, number: int, size: int, name: str) -> Any:
    """The value for an attention from the value of its block.

    Raises:
        UserError: it is a list of another length.
    """
    if not isinstance(value, list | tuple):
        return value
    if len(value) not in {1, size}:
        raise UserError(
            f"{len(value)} scales for {name}, which has {size} attention(s): give {size}"
        )
    return value[number if len(value) > 1 else 0]
