"""Latents, image embeddings and text embeddings of every shard (format: `formats.encoded`)."""

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from adapterbench.core.config import EncodeParams
from adapterbench.core.errors import InputError
from adapterbench.core.files import MANIFEST, link_or_copy, publish, read_json, sha256, write_json
from adapterbench.encoding.captions import CAPTIONS_PER_FILE, collect, write
from adapterbench.encoding.encoders import Encoders, load_encoders
from adapterbench.encoding.reading import Images, read_batches
from adapterbench.formats.encoded import COMMON, read_index, save_half
from adapterbench.formats.shards import Shard, find_shards, read_manifest
from adapterbench.frozen.load import fingerprint
from adapterbench.runs.processes import process_state, share
from adapterbench.runs.resume import exclusive_run, resume_path

log = logging.getLogger(__name__)


def encode(params: EncodeParams, shards: Path, backbone: Path, out: Path) -> dict[str, Any]:
    """Encode all shards of all splits into `out`; return its manifest.

    Images come first, shard by shard, then each distinct caption once. The processes of
    `accelerate launch` share the shards and the captions; each has worker processes that decode. A
    killed run resumes at its incomplete files, with any number of processes. An image that cannot
    be used is skipped and listed under `skipped`.

    Raises:
        UserError: a shard is missing or truncated, or a model cannot be loaded.
    """
    state = process_state()
    layout = {"captions_per_file": CAPTIONS_PER_FILE}
    facts = {"encode": params, "backbone": fingerprint(backbone), "layout": layout}
    done = resume_path("encode", facts, shards / MANIFEST)
    encoders = load_encoders(params, backbone, state.device)
    shards_of = {split: find_shards(shards, split) for split in read_manifest(shards).splits}
    warn_squares(params.fit, [shard for part in shards_of.values() for shard in part])
    own_shards = share([shard for part in shards_of.values() for shard in part], state)
    with exclusive_run(done, is_main=state.is_main_process):
        done.mkdir(parents=True, exist_ok=True)
        todo = [shard for shard in own_shards if not index_of(shard, done).exists()]
        batches = read_batches(todo, encoders.batch_size, encoders.clip.preprocess, params.fit)
        by_shard = groupby(batches, key=attrgetter("shard"))
        is_silent = not state.is_main_process
        for number, images in tqdm(by_shard, "encode", len(todo), unit="shard", disable=is_silent):
            encode_shard(todo[number], images, encoders, done)
        state.wait_for_everyone()
        indices = {split: [index_of(s, done) for s in part] for split, part in shards_of.items()}
        captions = collect(indices)
        encode_texts = {"stored": encoders.texts, "live": encoders.token_ids}[params.texts]
        texts = write(captions, encode_texts, done, state)
        state.wait_for_everyone()
        if state.is_main_process:
            common = {"empty": encode_texts([""])[0]} | encoders.unconditional()
            save_half(common | captions.phrasings, done / COMMON)
            publish_shards(indices, texts, encoders.clip.embed_dim, out)
            shutil.rmtree(done)
        state.wait_for_everyone()
    manifest: dict[str, Any] = read_json(out / MANIFEST)
    return manifest


def warn_squares(fit: str, shards: Sequence[Shard]) -> None:
    """Log that `encode.fit` changes nothing where all images are squares."""
    if fit != "crop" and all(shard.holds_squares for shard in shards):
        log.warning(
            "stage prepare packed all images as squares, which encode.fit = %s does not change; "
            "sources whose images lie in tars, such as data=local, keep them whole",
            fit,
        )


def index_of(shard: Shard, folder: Path) -> Path:
    """The JSON in `folder` that names a shard's samples; it is written last."""
    return folder / f"{shard.path.stem}.json"


def encode_shard(shard: Shard, batches: Iterable[Images], encoders: Encoders, out: Path) -> None:
    """Write `out/<shard>.safetensors`, then `out/<shard>.json`, which marks the shard as done.

    Raises:
        UserError: the shard is damaged, or none of its images can be used.
    """
    bad: list[dict[str, str]] = []
    rows: list[dict[str, Any]] = []
    batched: list[dict[str, Tensor]] = []
    for images in batches:
        bad += images.skipped
        rows += images.rows
        if images.rows:
            latents = encoders.latents(torch.from_numpy(images.pixels))
            tensors = {"latents": latents} | encoders.image_prompts(images)
            batched.append({name: tensor.half() for name, tensor in tensors.items()})
    if not rows:
        raise InputError(f"shard {shard.path} has no readable image", shard.path)
    encoded = out / f"{shard.path.stem}.safetensors"
    save_half({name: torch.cat([part[name] for part in batched]) for name in batched[0]}, encoded)
    facts = {"name": encoded.name, "sha256": sha256(encoded), "samples": rows, "skipped": bad}
    write_json(index_of(shard, out), facts)


def publish_shards(
    indices: Mapping[str, Sequence[Path]], texts: Sequence[Path], embed_dim: int, out: Path
) -> None:
    """Move the encoded files to `out`, with their manifest.

    Args:
        indices: the index of each shard of each split, in order, beside the files that it names.
        texts: the files of the captions, in order.
        embed_dim: width c of an image embedding.
    """
    splits = {split: [manifest_row(path) for path in paths] for split, paths in indices.items()}
    captions = [{"name": path.name, "sha256": sha256(path)} for path in texts]
    done = texts[0].parent
    with publish(out) as folder:
        folder.mkdir()
        rows = [row for shards in splits.values() for row in shards]
        names = [row[kind] for row in rows for kind in ("name", "index")]
        for name in (COMMON, *(path.name for path in texts), *names):
            link_or_copy(done / name, folder / name)
        common = {"name": COMMON, "sha256": sha256(done / COMMON)}
        manifest = {"embed_dim": embed_dim, "splits": splits, "texts": captions, "common": common}
        write_json(folder / MANIFEST, manifest)
    for shard in skipped(splits):
        log.warning("%s: skipped %s", shard["name"], shard["skipped"])


def manifest_row(index: Path) -> dict[str, Any]:
    """Row of the manifest for a shard, with the digests of its files."""
    facts = read_index(index)
    return {
        "name": facts.name,
        "sha256": facts.sha256,
        "samples": len(facts.samples),
        "skipped": facts.skipped,
        "index": index.name,
        "index_sha256": sha256(index),
    }


def skipped(splits: Mapping[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Manifest rows of the shards with images that could not be used."""
    yield from (shard for shards in splits.values() for shard in shards if shard["skipped"])
