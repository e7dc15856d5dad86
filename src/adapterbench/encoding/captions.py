"""Deduplicated captions of all shards (format: `formats.encoded`)."""

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
StoredTexts = Callable[[list[str]], Tensor]
"""Texts -> what is stored of them: embeddings `(T, L, D)` or token ids `(T, L)`."""


@dataclass(frozen=True)
class Captions:
    """Deduplicated captions, and the captions of each sample as indices into them."""

    texts: list[str]
    """Distinct captions of all splits, in order of first occurrence."""
    phrasings: dict[str, Tensor]
    """By split `(N, P)`: the index into `texts` of each phrasing of each sample."""


def collect(indices: Mapping[str, Sequence[Path]]) -> Captions:
    """Collect and number the captions of all samples.

    Args:
        indices: the `<shard>.json` of each split, in order.
    """
    numbers: dict[str, int] = {}
    phrasings = {}
    for split, paths in indices.items():
        captions = [row.captions for path in paths for row in read_index(path).samples]
        max_phrasings = max(map(len, captions))
        # a sample with fewer phrasings repeats them, so that the table is rectangular
        phrasings[split] = torch.tensor(
            [
                [
                    numbers.setdefault(texts[i % len(texts)], len(numbers))
                    for i in range(max_phrasings)
                ]
                for texts in captions
            ]
        )
    return Captions(list(numbers), phrasings)


def write(captions: Captions, stored: StoredTexts, out: Path, state: PartialState) -> list[Path]:
    """Write `out/texts-00000.safetensors` and so on, each process its share; return all paths.

    Existing files are complete, since they are published atomically, and are kept.
    """
    parts = list(chunked(captions.texts, CAPTIONS_PER_FILE))
    paths = [out / f"texts-{number:05d}.safetensors" for number in range(len(parts))]
    mine = share(list(zip(paths, parts, strict=True)), state)
    for path, texts in tqdm(mine, "captions", unit="file", disable=not state.is_main_process):
        if not path.exists():
            save_half({"texts": stored(texts)}, path)
    return paths
