"""Latents, image embeddings and text embeddings of every shard (format: `data.encoded`)."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from more_itertools import chunked
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from adapterbench.backbone.load import Clip, fingerprint, load_clip, load_part
from adapterbench.config import EncodeParams
from adapterbench.data.encoded import COMMON
from adapterbench.data.image import to_array
from adapterbench.data.shards import Sample, read_shard, shard_paths
from adapterbench.errors import UserError
from adapterbench.files import MANIFEST, publish, read_json, sha256, write_json
from adapterbench.resume import resume_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoders:
    """The frozen networks and how many pictures they take at a time."""

    vae: Any
    text_encoder: Any
    tokenizer: Any
    clip: Clip
    batch_size: int

    @torch.no_grad()
    def latents(self, samples: list[Sample]) -> Tensor:
        """Scaled posterior modes `(N, C, h, w)`."""
        chunks = []
        for part in chunked(samples, self.batch_size):
            pixels = torch.stack([torch.from_numpy(to_array(sample.image)) for sample in part])
            chunks.append(self.vae.encode(pixels.float() / 127.5 - 1).latent_dist.mode())
        latents: Tensor = torch.cat(chunks) * self.vae.config.scaling_factor
        return latents

    def image_embeds(self, samples: list[Sample]) -> Tensor:
        """CLIP embeddings of the pictures `(N, c)`, not normalised."""
        parts = chunked(samples, self.batch_size)
        return torch.cat([self.clip.image_embeds([s.image for s in part]) for part in parts])

    @torch.no_grad()
    def texts(self, captions: list[str]) -> Tensor:
        """Last hidden states of the text encoder `(T, L, D)`, as the pipeline computes them."""
        chunks = []
        for part in chunked(captions, self.batch_size):
            ids = self.tokenizer(
                list(part),
                padding="max_length",
                truncation=True,
                return_tensors="pt",
                max_length=self.tokenizer.model_max_length,
            ).input_ids
            chunks.append(self.text_encoder(ids).last_hidden_state)
        return torch.cat(chunks)


def encode(params: EncodeParams, shards: Path, backbone: Path, out: Path) -> dict[str, Any]:
    """Encode all shards of all splits into `out`; return its manifest.

    A killed run goes on at the shard it was in. A picture that cannot be decoded is skipped and
    counted under `skipped`.

    Raises:
        UserError: a shard is missing or truncated, or a model cannot be loaded.
    """
    facts = {"encode": params, "backbone": fingerprint(backbone)}
    done = resume_path("encode", facts, shards / MANIFEST)
    done.mkdir(parents=True, exist_ok=True)
    encoders = load_encoders(params, backbone)
    splits = read_json(shards / MANIFEST)["splits"]
    todo = [path for split in splits for path in shard_paths(shards, split)]
    for path in tqdm(todo, desc="encode", unit="shard"):
        if not (done / f"{path.stem}.json").exists():
            encode_shard(path, encoders, done)
    save({"empty": encoders.texts([""])[0]}, done / COMMON)
    manifest = {
        "embed_dim": encoders.clip.embed_dim,
        "splits": {
            split: [read_json(done / f"{path.stem}.json") for path in shard_paths(shards, split)]
            for split in splits
        },
    }
    with publish(out) as folder:
        folder.mkdir()
        for path in sorted(done.glob("*.safetensors")):
            shutil.copyfile(path, folder / path.name)
        write_json(folder / MANIFEST, manifest)
    shutil.rmtree(done)
    for shard in skipped(manifest):
        log.warning("%s: skipped %s", shard["name"], shard["skipped"])
    return manifest


def load_encoders(params: EncodeParams, backbone: Path) -> Encoders:
    """Load the frozen encoders."""
    return Encoders(
        vae=load_part(backbone, "vae"),
        text_encoder=load_part(backbone, "text_encoder"),
        tokenizer=load_part(backbone, "tokenizer"),
        clip=load_clip(params.image_encoder, params.pretrained),
        batch_size=params.batch_size,
    )


def encode_shard(path: Path, encoders: Encoders, out: Path) -> None:
    """Write `out/<shard>.safetensors`, then `out/<shard>.json`, which marks it as done.

    Raises:
        UserError: the shard is truncated, or none of its pictures can be decoded.
    """
    bad: list[dict[str, str]] = []
    samples = list(read_shard(path, bad))
    if not samples:
        raise UserError(f"shard {path} has no readable picture: run `dvc repro prepare`")
    captions = list(dict.fromkeys(text for sample in samples for text in sample.captions))
    number = {text: row for row, text in enumerate(captions)}
    most = max(len(sample.captions) for sample in samples)
    # a sample with fewer phrasings repeats them, so that the table is rectangular
    phrasings = [
        [number[sample.captions[i % len(sample.captions)]] for i in range(most)]
        for sample in samples
    ]
    tensors = {
        "latents": encoders.latents(samples),
        "image_embeds": encoders.image_embeds(samples),
        "texts": encoders.texts(captions),
    }
    encoded = out / f"{path.stem}.safetensors"
    save(tensors | {"phrasings": torch.tensor(phrasings)}, encoded)
    rows = [
        {"key": s.key, "concept": s.meta.get("concept", s.key), "caption": s.captions[0]}
        for s in samples
    ]
    # with the digest, the manifest stands for the content of all shards
    facts = {"name": encoded.name, "sha256": sha256(encoded), "samples": rows, "skipped": bad}
    write_json(out / f"{path.stem}.json", facts)


def save(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, floats as fp16."""
    with publish(path) as beside:
        half = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
        save_file({name: tensor.contiguous() for name, tensor in half.items()}, beside)


def skipped(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The shards with pictures that could not be decoded."""
    yield from (
        shard for split in manifest["splits"].values() for shard in split if shard["skipped"]
    )
