"""Damages as disks, networks and slips make them, drawn from a seed."""

import json
import random
from copy import deepcopy
from pathlib import Path
from typing import Any


def flip(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def zero(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    length = min(draw.choice([1, 16, 512, 4096]), len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def insert(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.randbytes(draw.choice([1, 8, 512])) + data[at:]


def drop(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + data[at + draw.choice([1, 8, 512]) :]


def double(data: bytes, _draw: random.Random) -> bytes:
    return data + data


def replace(_data: bytes, draw: random.Random) -> bytes:
    return draw.choice([b"", b"null", b"[]", b"{}", b"\xff\xfe", b"\x89PNG\r\n\x1a\n", bytes(2048)])


DAMAGES = (flip, cut, zero, insert, drop, double, replace)
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 0.5, 1e308, "", "x", "../..", "\x00", [], [1], {}, {"a": None}),
    *("9" * 300, "null", ["a", 1], -0.0, 2**63, "é", {"1": {}}),
)
"""Values that stand where others are expected."""


def edit(tree: Any, draw: random.Random) -> None:
    """Change, remove or add one value somewhere in nested mappings and lists, in place."""
    places = []

    def walk(node: Any) -> None:
        inner = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in inner:
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(tree)
    node, key = draw.choice(places)
    action = draw.choice(["set", "set", "remove", "add"])
    if action == "set":
        node[key] = deepcopy(draw.choice(ODD))
    elif action == "remove":
        del node[key]
    elif isinstance(node, dict):
        node[draw.choice(["x", "", "seed", "steps"])] = deepcopy(draw.choice(ODD))
    else:
        node.append(deepcopy(draw.choice(ODD)))


def damaged(path: Path, draw: random.Random) -> str:
    """Damage a file in place; what was done."""
    data = path.read_bytes()
    if path.suffix == ".json" and draw.random() < 0.5:
        tree = json.loads(data)
        edit(tree, draw)
        path.write_text(json.dumps(tree))
        return "edit"
    damage = draw.choice(DAMAGES)
    path.write_bytes(damage(data, draw))
    return damage.__name__
