"""diffusers' dictionaries of blocks: `{"down": {"block_2": [0.0, 1.0]}, "up": 0.5, "mid": 1.0}`.

As `set_ip_adapter_scale` reads them: what is left out gets 0, a number counts for all that is below
it, and a list has a number for each attention of a block (a list of one counts for all of them).
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
        UserError: a block that the UNet does not have, or a list of another length.
    """
    places = {path: place(path) for path in paths}
    sizes = attentions(places.values())
    check_blocks(blocks, sizes)
    found = {}
    for path, (side, block, number) in places.items():
        value = blocks.get(side, 0.0)
        if isinstance(value, Mapping):
            value = value.get(block, 0.0)
        found[path] = one_of(value, number, sizes[side][block], f"{side}.{block}")
    return found


def place(path: str) -> Place:
    """Where a layer stands."""
    found = PATH.match(path)
    if found is None:
        raise UserError(
            f"the layer {path} is in none of diffusers' blocks: give scale as a mapping from the "
            "paths of layers"
        )
    side, block, number = found.groups()
    return side, f"block_{block or 0}", int(number)


def attentions(places: Iterable[Place]) -> dict[str, dict[str, int]]:
    """How many attentions each block has, such as `{"up": {"block_0": 3}}`."""
    found: dict[str, dict[str, int]] = {}
    for side, block, number in places:
        blocks = found.setdefault(side, {})
        blocks[block] = max(blocks.get(block, 0), number + 1)
    return found


def check_blocks(blocks: Mapping[str, Any], sizes: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse a dictionary that names what the UNet does not have.

    Raises:
        UserError: it does.
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


def one_of(value: Any, number: int, size: int, name: str) -> Any:
    """The entry of an attention in what a block has.

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
