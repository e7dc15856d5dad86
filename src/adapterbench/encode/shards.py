"""Latents, image embeddings and text embeddings of every shard (format: `data.encoded`)."""

import logging
import shutil
from collections.abc import Iterator, Mapping
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
from adapterbench.files import MANIFEST, link_or_copy, publish, read_json, sha256, write_json
from adapterbench.processes import processes, share
from adapterbench.resume import resume_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoders:
    """The frozen networks and how many inputs they take at a time; what they give is on the CPU."""

    vae: Any
    text_encoder: Any
    tokenizer: Any
    clip: Clip
    batch_size: int

    @torch.no_grad()
    def latents(self, samples: list[Sample]) -> Tensor:
        """Scaled posterior modes of a batch `(B, C, h, w)`."""
        pixels = torch.stack([torch.from_numpy(to_array(sample.image)) for sample in samples])
        scaled = pixels.to(self.vae.device).float() / 127.5 - 1
        latents: Tensor = self.vae.encode(scaled).latent_dist.mode()
        return latents.cpu() * self.vae.config.scaling_factor

    def image_embeds(self, samples: list[Sample]) -> Tensor:
        """CLIP embeddings of a batch `(B, c)`, not normalised."""
        return self.clip.image_embeds([sample.image for sample in samples])

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
            ids = ids.to(self.text_encoder.device)
            chunks.append(self.text_encoder(ids).last_hidden_state.cpu())
        return torch.cat(chunks)


def encode(params: EncodeParams, shards: Path, backbone: Path, out: Path) -> dict[str, Any]:
    """Encode all shards of all splits into `out`; return its manifest.

    Processes that `accelerate launch` starts share the shards. A killed run goes on at the shards
    it was in, with any number of processes. A picture that cannot be decoded is skipped and
    counted under `skipped`.

    Raises:
        UserError: a shard is missing or truncated, or a model cannot be loaded.
    """
    state = processes()
    facts = {"encode": params, "backbone": fingerprint(backbone)}
    done = resume_path("encode", facts, shards / MANIFEST)
    done.mkdir(parents=True, exist_ok=True)
    encoders = load_encoders(params, backbone, state.device)
    splits = read_json(shards / MANIFEST)["splits"]
    paths = {split: shard_paths(shards, split) for split in splits}
    mine = share([path for split in splits for path in paths[split]], state)
    for path in tqdm(mine, desc="encode", unit="shard", disable=not state.is_main_process):
        if not (done / f"{path.stem}.json").exists():
            encode_shard(path, encoders, done)
    state.wait_for_everyone()
    if state.is_main_process:
        save({"empty": encoders.texts([""])[0]}, done / COMMON)
        publish_shards(done, paths, encoders.clip.embed_dim, out)
    state.wait_for_everyone()
    manifest: dict[str, Any] = read_json(out / MANIFEST)
    return manifest


def load_encoders(
    params: EncodeParams, backbone: Path, device: torch.device | str = "cpu"
) -> Encoders:
    """Load the frozen encoders."""
    return Encoders(
        vae=load_part(backbone, "vae").to(device, memory_format=torch.channels_last),
        text_encoder=load_part(backbone, "text_encoder").to(device),
        tokenizer=load_part(backbone, "tokenizer"),
        clip=load_clip(params.image_encoder, params.pretrained).to(device),
        batch_size=params.batch_size,
    )


def encode_shard(path: Path, encoders: Encoders, out: Path) -> None:
    """Write `out/<shard>.safetensors`, then `out/<shard>.json`, which marks it as done.

    Raises:
        UserError: the shard is truncated, or none of its pictures can be decoded.
    """
    bad: list[dict[str, str]] = []
    rows: list[dict[str, str]] = []
    spoken: list[tuple[str, ...]] = []
    latents, image_embeds = [], []
    # as read, so that no more than a batch of pictures is in memory
    for samples in chunked(read_shard(path, bad), encoders.batch_size):
        latents.append(encoders.latents(samples))
        image_embeds.append(encoders.image_embeds(samples))
        rows += [
            {"key": s.key, "concept": s.meta.get("concept", s.key), "caption": s.captions[0]}
            for s in samples
        ]
        spoken += [sample.captions for sample in samples]
    if not rows:
        raise UserError(f"shard {path} has no readable picture: run `dvc repro prepare`")
    captions = list(dict.fromkeys(text for texts in spoken for text in texts))
    number = {text: row for row, text in enumerate(captions)}
    most = max(map(len, spoken))
    # a sample with fewer phrasings repeats them, so that the table is rectangular
    phrasings = [[number[texts[i % len(texts)]] for i in range(most)] for texts in spoken]
    tensors = {
        "latents": torch.cat(latents),
        "image_embeds": torch.cat(image_embeds),
        "texts": encoders.texts(captions),
    }
    encoded = out / f"{path.stem}.safetensors"
    save(tensors | {"phrasings": torch.tensor(phrasings)}, encoded)
    facts = {"name": encoded.name, "sha256": sha256(encoded), "samples": rows, "skipped": bad}
    write_json(out / f"{path.stem}.json", facts)


def publish_shards(done: Path, paths: Mapping[str, list[Path]], embed_dim: int, out: Path) -> None:
    """Move the encoded shards in `done` to `out`, with the manifest that lists them.

    Args:
        paths: the webdataset shards of each split, in order.
        embed_dim: width c of an image embedding.
    """
    splits = {
        split: [manifest_row(done / f"{path.stem}.json") for path in paths[split]]
        for split in paths
    }
    with publish(out) as folder:
        folder.mkdir()
        rows = [row for shards in splits.values() for row in shards]
        for name in (COMMON, *(row[kind] for row in rows for kind in ("name", "index"))):
            link_or_copy(done / name, folder / name)
        write_json(folder / MANIFEST, {"embed_dim": embed_dim, "splits": splits})
    shutil.rmtree(done)
    for shard in skipped(splits):
        log.warning("%s: skipped %s", shard["name"], shard["skipped"])


def manifest_row(index: Path) -> dict[str, Any]:
    """What the manifest says of a shard; with the digests it stands for all content."""
    facts = read_json(index)
    digest = {"index": index.name, "index_sha256": sha256(index)}
    return facts | digest | {"samples": len(facts["samples"])}


def save(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, floats as fp16."""
    with publish(path) as beside:
        half = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
        save_file({name: tensor.contiguous() for name, tensor in half.items()}, beside)


def skipped(splits: Mapping[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The shards with pictures that could not be decoded."""
    yield from (shard for shards in splits.values() for shard in shards if shard["skipped"])
