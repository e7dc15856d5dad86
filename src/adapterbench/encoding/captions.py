"""Every distinct caption of all shards, once (format: `formats.encoded`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from more_itertools import chunked
from torch import Tensor
from tqdm import tqdm

from adapterbench.formats.encoded import read_index, save_half
from adapterbench.runs.processes import share

CAPTIONS_PER_FILE = 4096
Kept = Callable[[list[str]], Tensor]
"""Texts -> what is kept of them: embeddings `(T, L, D)` or token ids `(T, L)`."""


@dataclass(frozen=True)
class Captions:
    """What all samples say, each text once."""

    texts: list[str]
    """Distinct captions of all splits, in the order in which they are first met."""
    phrasings: dict[str, Tensor]
    """Of each split `(N, P)`: the number in `texts` of each phrasing of its N samples."""


def collect(indices: Mapping[str, Sequence[Path]]) -> Captions:
    """Number the captions of all samples.

    Args:
        indices: the `<shard>.json` of each split, in order.
    """
    numbers: dict[str, int] = {}
    phrasings = {}
    for split, paths in indices.items():
        spoken = [row.captions for path in paths for row in read_index(path).samples]
        most = max(map(len, spoken))
        # a sample with fewer phrasings repeats them, so that the table is rectangular
        phrasings[split] = torch.tensor(
            [
                [numbers.setdefault(texts[i % len(texts)], len(numbers)) for i in range(most)]
                for texts in spoken
            ]
        )
    return Captions(list(numbers), phrasings)


def write(captions: Captions, kept: Kept, out: Path, state: PartialState) -> list[Path]:
    """Write `out/texts-00000.safetensors` and so on, this process its share; return all paths.

    A file that is there already is whole, and is kept.
    """
    parts = list(chunked(captions.texts, CAPTIONS_PER_FILE))
    paths = [out / f"texts-{number:05d}.safetensors" for number in range(len(parts))]
    mine = share(list(zip(paths, parts, strict=True)), state)
    for path, texts in tqdm(mine, "captions", unit="file", disable=not state.is_main_process):
        if not path.exists():
            save_half({"texts": kept(texts)}, path)
    return paths
