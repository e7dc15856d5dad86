"""Images a second of encoding: stage `encode` against the loop people write.

The peer decodes an image, runs the VAE, the CLIP and the text encoder on it and its captions, and
goes on to the next; ours takes images in batches and each distinct caption once, and writes and
checks its files.
"""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from turns import compare, timed

from adapterbench.core.config import EncodeParams, load_params
from adapterbench.encoding.encoders import Encoders, load_encoders
from adapterbench.encoding.shards import encode
from adapterbench.formats.image import to_array
from adapterbench.formats.shards import read_manifest, read_split
from adapterbench.runs.memory import keep_freed_memory


def main(
    data: Annotated[Path, typer.Option(help="Folder of backbone and shards.")] = Path("data"),
    rounds: Annotated[int, typer.Option(help="Timed turns of each way.")] = 3,
) -> None:
    """Compare the two ways of encoding; needs what `dvc repro prepare backbone` leaves."""
    keep_freed_memory()  # as every stage does
    params = load_params(EncodeParams, "encode")
    shards, backbone = (data / "shards").resolve(), (data / "backbone").resolve()
    encoders = load_encoders(params, backbone)
    ways = {
        "in batches, captions once (ours)": timed(lambda _: ours(params, shards, backbone)),
        "one by one": timed(lambda _: theirs(encoders, shards)),
    }
    title = f"Encoding {shards}, {torch.get_num_threads()} threads"
    compare(title, "images/s", ways, rounds)


def ours(params: EncodeParams, shards: Path, backbone: Path) -> int:
    """What stage `encode` does, its start included."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where it keeps what a killed run resumes from
        try:
            manifest = encode(params, shards, backbone, Path("encoded"))
        finally:
            os.chdir(here)
    return sum(shard["samples"] for split in manifest["splits"].values() for shard in split)


@torch.no_grad()
def theirs(encoders: Encoders, shards: Path) -> int:
    """The same embeddings, sample by sample, kept in memory."""
    made = []
    for split in read_manifest(shards).splits:
        for sample in read_split(shards, split):
            latents = encoders.latents(torch.from_numpy(to_array(sample.image))[None])
            embeds = encoders.clip.image_embeds([sample.image])
            made.append((latents, embeds, [encoders.texts([text]) for text in sample.captions]))
    return len(made)


if __name__ == "__main__":
    typer.run(main)
