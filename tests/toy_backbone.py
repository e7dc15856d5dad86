"""A whole project in small: random weights in the layout of the real backbone, and toy shards."""

from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from open_clip.model import CLIP
from PIL import Image, ImageDraw
from timm.models import save_for_hf
from transformers import CLIPTokenizer

from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import save_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.config import EncodeParams, SampleParams, ScoreParams
from adapterbench.core.files import MANIFEST, write_json
from adapterbench.encoding.shards import encode
from adapterbench.formats.shards import Sample, write_shard
from adapterbench.frozen.load import load_part
from adapterbench.pretraining import clip, tokenizer, unet, vae
from adapterbench.scoring.evaluator import Folders

SIDE = 32
COLOURS = {"red": "#d02020", "green": "#20a040", "blue": "#2040c0"}
BOX = (6, 6, 25, 25)
SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, str], None]] = {
    "circle": lambda draw, fill: draw.ellipse(BOX, fill),
    "square": lambda draw, fill: draw.rectangle(BOX, fill),
    "triangle": lambda draw, fill: draw.polygon([(16, 4), (28, 27), (4, 27)], fill),
    "zigzag": lambda draw, fill: draw.line([(6, 6), (26, 26), (26, 6), (6, 26)], fill, 5),
    "bar": lambda draw, fill: draw.rectangle((2, 13, 29, 19), fill),
    "ring": lambda draw, fill: draw.ellipse(BOX, outline=fill, width=4),
    "diamond": lambda draw, fill: draw.polygon([(16, 3), (29, 16), (16, 29), (3, 16)], fill),
    "frame": lambda draw, fill: draw.rectangle(BOX, outline=fill, width=3),
}
MAKERS = {
    colour: {"style": style, "family": style}
    for colour, style in zip(COLOURS, ("google", "twitter", "fluent"), strict=True)
}
"""Facts of an image, as if a colour were a maker's style."""
HELD_OUT = ("diamond", "frame")
SHARD = 7

FIT: dict[str, Any] = {
    "steps": 2,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "max_grad_norm": 1.0,
    "ema_decay": 0.0,
    "log_every": 1,
    "checkpoint_every": 10,
    "seed": 0,
}
CLIP_PARAMS = clip.ClipParams(
    **FIT,
    vocab_size=560,
    context_length=16,
    embed_dim=24,
    patch_size=16,
    vision_width=32,
    vision_layers=2,
    text_width=32,
    text_layers=2,
    head_width=16,
    max_shift=0.05,
    max_zoom=0.1,
    color_jitter=0.1,
    maker_weight=0.5,
)
VAE_PARAMS = vae.VaeParams(
    **FIT,
    latent_channels=4,
    block_out_channels=(8, 8, 16, 16),
    layers_per_block=1,
    perceptual_weight=0.03,
    max_shift=2,
    balance=0.75,
)
UNET_PARAMS = unet.UnetParams(
    **FIT,
    block_out_channels=(32, 64),
    layers_per_block=1,
    head_width=16,
    drop_text=0.1,
    image_versions=2,
    thinned_captions=3,
    drop_parts=0.5,
    concept_balance=0.5,
    mixed_precision="no",
    compile=False,
    first_step=0,
)
SAMPLE = SampleParams(
    items=2,
    images_per_item=1,
    steps=2,
    guidance_scale=3,
    scale=1,
    batch_size=1,
    mixed_precision="no",
    seed=0,
)
VARIANT = {"projection": "linear", "attention": "decoupled", "tokens": 4}
PLUS = {
    "projection": "resampler",
    "attention": "decoupled",
    "tokens": 3,
    "patch_width": CLIP_PARAMS.vision_width,
    "channels": 16,
    "depth": 4,
    "heads": 2,
}
"""IP-Adapter "plus" over the toy's image encoder."""


@dataclass(frozen=True)
class Toy:
    """Folders as the stages leave them."""

    root: Path

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def backbone(self) -> Path:
        return self.root / "backbone"

    @property
    def encoded(self) -> Path:
        return self.root / "encoded"

    @property
    def adapter(self) -> Path:
        return self.root / "models" / "toy"

    @property
    def encode_params(self) -> EncodeParams:
        return EncodeParams(
            image_encoder="backbone:image_encoder",
            pretrained=None,
            batch_size=4,
            fit="crop",
            patches=False,
            texts="stored",
        )

    @property
    def image_encoder(self) -> str:
        return f"local-dir:{self.backbone / 'image_encoder'}"

    @property
    def evaluator(self) -> str:
        return f"local-dir:{self.backbone / 'evaluator'}"

    @property
    def neutral(self) -> Path:
        return self.root / "neutral_evaluator"

    @property
    def folders(self) -> Folders:
        return Folders(self.backbone, self.neutral)

    def score_params(self, batch_size: int = 4) -> ScoreParams:
        """Both evaluators."""
        size = {"batch_size": batch_size}
        clip = {"kind": "open_clip", "model": "backbone:evaluator", "pretrained": None, **size}
        neutral = {"kind": "timm", "resolution": SIDE, **size}
        return ScoreParams.model_validate(
            {"evaluators": {"clip": clip, "neutral": neutral}, "kid_subset_size": None}
        )


def toy_image(shape: str, colour: str) -> Image.Image:
    """A coloured shape on white."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    SHAPES[shape](ImageDraw.Draw(image), COLOURS[colour])
    return image


def toy_samples() -> Iterator[Sample]:
    """24 images of 8 shapes; the number of phrasings is 1, 2 or 3."""
    for number, shape in enumerate(SHAPES):
        for colour in COLOURS:
            captions = (
                f"a {colour} {shape}",
                f"image of a {shape}, {colour}",
                f"{shape} in {colour}",
            )
            yield Sample(
                key=f"{colour}-{shape}",
                image=toy_image(shape, colour),
                captions=captions[: 1 + number % 3],
                meta={"concept": shape, "name": shape, "tones": "", **MAKERS[colour]},
            )


def write_shards(folder: Path) -> None:
    """What stage `prepare` leaves: three shards of 18 + 6 images and the manifest."""
    folder.mkdir(parents=True)
    splits: dict[str, Any] = {}
    for split in ("train", "validation"):
        samples = [
            s for s in toy_samples() if (s.meta["concept"] in HELD_OUT) == (split == "validation")
        ]
        shards = [
            write_shard(
                folder / f"{split}-{at // SHARD:05d}.tar",
                (sample.packed() for sample in samples[at : at + SHARD]),
            )
            for at in range(0, len(samples), SHARD)
        ]
        splits[split] = {"samples": len(samples), "concepts": 0, "shards": shards}
    write_json(folder / MANIFEST, {"attribution": {}, "dropped": {}, "drops": [], "splits": splits})


def toy_tokenizer() -> CLIPTokenizer:
    """Learnt on the toy captions."""
    texts = (text for sample in toy_samples() for text in sample.captions)
    return tokenizer.train(texts, CLIP_PARAMS.vocab_size, CLIP_PARAMS.context_length)


def toy_clip(vocabulary: CLIPTokenizer, seed: int) -> CLIP:
    """An untrained CLIP whose embeddings differ from image to image."""
    torch.manual_seed(seed)
    return CLIP(**clip.model_config(CLIP_PARAMS, SIDE, vocabulary)).eval()


def write_backbone(folder: Path) -> None:
    """What stage `backbone` leaves: the pipeline, `image_encoder/` and `evaluator/`, fp16."""
    vocabulary = toy_tokenizer()
    image_encoder = toy_clip(vocabulary, 1)
    torch.manual_seed(2)
    autoencoder = vae.build(VAE_PARAMS, SIDE).eval()
    autoencoder.register_to_config(scaling_factor=0.5)
    latents = torch.zeros(1, VAE_PARAMS.latent_channels, SIDE // 8, SIDE // 8)
    unet.save(
        autoencoder,
        clip.text_model(image_encoder, vocabulary),
        vocabulary,
        unet.build(UNET_PARAMS, latents, CLIP_PARAMS.text_width).eval(),
        folder,
    )
    clip.save(image_encoder, CLIP_PARAMS, vocabulary, folder / "image_encoder")
    clip.save(toy_clip(vocabulary, 3), CLIP_PARAMS, vocabulary, folder / "evaluator")


def write_neutral_evaluator(folder: Path) -> None:
    """What stage `neutral_evaluator` leaves: a tiny network of timm's own tests."""
    torch.manual_seed(5)
    save_for_hf(timm.create_model("test_efficientnet"), str(folder), safe_serialization=True)


def write_adapter(toy: Toy) -> None:
    """What stage `train` leaves: an adapter that has moved away from where it started."""
    torch.manual_seed(4)
    adapter = build_adapter(
        parse_variant(VARIANT), load_part(toy.backbone, "unet"), CLIP_PARAMS.embed_dim
    )
    with torch.no_grad():
        for weight in adapter.trainable_parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    save_adapter(adapter, toy.adapter, parse_variant(VARIANT), {})


def make(root: Path) -> Toy:
    """The whole project below `root`."""
    toy = Toy(root)
    write_shards(toy.shards)
    write_backbone(toy.backbone)
    write_neutral_evaluator(toy.neutral)
    with chdir(root):
        encode(toy.encode_params, toy.shards, toy.backbone, toy.encoded)
    write_adapter(toy)
    return toy


def with_patches(toy: Toy, root: Path) -> Toy:
    """The same project below `root`, with the features of patches in its encoded shards."""
    own = Toy(root)
    for path in toy.root.iterdir():
        if path != toy.encoded:
            (root / path.name).symlink_to(path)
    params = toy.encode_params.model_copy(update={"patches": True})
    with chdir(root):
        encode(params, own.shards, own.backbone, own.encoded)
    return own
