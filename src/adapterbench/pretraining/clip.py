"""A small CLIP (Radford et al. 2021) in open_clip, and its text tower for the pipeline."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from open_clip import ClipLoss
from open_clip.model import CLIP
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from adapterbench.core.config import FitParams, Fraction
from adapterbench.frozen.towers import layer_weights
from adapterbench.pretraining.images import CaptionedImages
from adapterbench.training.loop import FitResult, Loss, OnLog, batch_indices, fit

MEAN = STD = (0.5, 0.5, 0.5)


class ContrastParams(FitParams):
    """Contrastive training."""

    max_shift: Fraction
    """Largest random translation, as a share of the side."""
    max_zoom: Fraction
    """Largest random change of scale, as a share."""
    color_jitter: Fraction
    """Largest random change of brightness, contrast and saturation, as a share."""
    maker_weight: Annotated[float, Field(ge=0)]
    """Weight of a second contrastive loss, between images of one emoji by two makers; 0: none."""


class ClipParams(ContrastParams):
    """Architecture and training of a CLIP."""

    vocab_size: int
    """Largest size of the vocabulary."""
    context_length: int
    """Tokens per caption, including start and end."""
    embed_dim: int
    """Width of the shared embedding space."""
    patch_size: int
    """Pixels."""
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    head_width: int
    """Channels per attention head, in both towers."""


def model_config(params: ClipParams, resolution: int, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """The section `model_cfg` of an open_clip configuration file."""
    return {
        "embed_dim": params.embed_dim,
        "vision_cfg": {
            "image_size": resolution,
            "patch_size": params.patch_size,
            "width": params.vision_width,
            "layers": params.vision_layers,
            "head_width": params.head_width,
        },
        "text_cfg": {
            "context_length": tokenizer.model_max_length,
            "vocab_size": len(tokenizer),
            "width": params.text_width,
            "heads": params.text_width // params.head_width,
            "layers": params.text_layers,
            # ignored: for a local directory open_clip reads the tokenizer files in it
            "hf_tokenizer_name": "local",
        },
    }


def train(
    params: ClipParams,
    images: CaptionedImages,
    tokenizer: CLIPTokenizer,
    resume: Path,
    on_log: OnLog,
    label: str,
) -> tuple[CLIP, FitResult]:
    """Contrastive training on the device of the images.

    Each sample uses a random phrasing of its caption.
    """
    torch.manual_seed(params.seed)
    device = images.pixels.device
    model = CLIP(**model_config(params, images.pixels.shape[-1], tokenizer)).to(device)
    phrasings = [tokenize(list(texts), tokenizer) for texts in images.captions]

    def encode_text(ids: Tensor) -> Tensor:
        return model.encode_text(ids, normalize=True)

    loss = contrastive_loss(model, params, images, phrasings, encode_text)
    fitted = fit(list(model.parameters()), loss, params, resume, on_log, label)
    return model.eval(), fitted


def contrastive_loss(
    model: CLIP,
    params: ContrastParams,
    images: CaptionedImages,
    phrasings: Sequence[Tensor],
    encode_text: Callable[[Tensor], Tensor],
) -> Loss:
    """CLIP's loss of a step's images and captions, and of the images and other makers' of them.

    Args:
        phrasings: of each image, `(P, ...)`; a step uses one at random.
        encode_text: gives the unit embeddings `(B, D)` of the phrasings `(B, ...)`.
    """
    contrast = ClipLoss()
    others = same_emoji(images.keys)

    def encode_image(rows: Sequence[int], generator: torch.Generator) -> Tensor:
        seen = augmented(images.pixels[rows], params, generator)
        return model.encode_image(normalise(seen), normalize=True)

    def loss(step: int, generator: torch.Generator, _whole: slice) -> Tensor:
        rows = batch_indices(len(images), params.batch_size, params.seed, step).tolist()
        image = encode_image(rows, generator)
        texts = torch.stack(one_of_each(phrasings, rows, generator))
        scale = model.logit_scale.exp().clamp(max=100)
        total = contrast(image, encode_text(texts.to(image.device)), scale)
        if params.maker_weight:
            other = encode_image(one_of_each(others, rows, generator), generator)
            total = total + params.maker_weight * contrast(image, other, scale)
        return total

    return loss


def one_of_each(
    choices: Sequence[Any], rows: Sequence[int], generator: torch.Generator
) -> list[Any]:
    """One of the choices of each row, lists or tensors, at random."""
    draw = torch.rand(len(rows), generator=generator)
    return [choices[row][int(u * len(choices[row]))] for row, u in zip(rows, draw, strict=True)]


def tokenize(texts: list[str], tokenizer: CLIPTokenizer) -> Tensor:
    """Token ids `(N, context_length)`, padded with the end token."""
    encoded = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    return encoded.input_ids


def normalise(pixels: Tensor) -> Tensor:
    """uint8 pixels -> encoder input; equals open_clip's transform with `MEAN` and `STD`."""
    return (pixels.float() / 255 - MEAN[0]) / STD[0]


def same_emoji(keys: list[str]) -> list[list[int]]:
    """For each image, indices of other makers' images of the same emoji; its own index if none.

    Args:
        keys: name of the image set and code points, such as `google-1f984`.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        groups[key.partition("-")[2]].append(number)
    return [
        [n for n in groups[key.partition("-")[2]] if n != number] or [number]
        for number, key in enumerate(keys)
    ]


def augmented(pixels: Tensor, params: ContrastParams, generator: torch.Generator) -> Tensor:
    """Translate, scale and recolour uint8 images `(B, 3, H, W)` at random, filling with white."""

    def draw(limit: float, *shape: int) -> Tensor:
        uniform = torch.rand(len(pixels), *shape, generator=generator)
        return ((2 * uniform - 1) * limit).to(pixels.device)

    x = pixels.float() / 255
    theta = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + draw(params.max_zoom)
    theta[:, :, 2] = draw(2 * params.max_shift, 2)  # the grid spans [-1, 1]: the side is 2
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = 1 - F.grid_sample(1 - x, grid, align_corners=False)
    if params.color_jitter:
        gray = x.mean(dim=1, keepdim=True)
        x = gray + (x - gray) * (1 + draw(params.color_jitter, 1, 1, 1))
        x = 0.5 + (x - 0.5) * (1 + draw(params.color_jitter, 1, 1, 1))
        x = x + draw(params.color_jitter / 2, 1, 1, 1)
    return x.clamp(0, 1) * 255


@torch.no_grad()
def embed(model: CLIP, images: CaptionedImages, tokenizer: CLIPTokenizer) -> tuple[Tensor, Tensor]:
    """Unit embeddings of all images and of their first captions, `(N, D)` each."""
    chunks = images.pixels.split(256)
    of_images = [model.encode_image(normalise(x), normalize=True) for x in chunks]
    ids = tokenize([texts[0] for texts in images.captions], tokenizer).to(images.pixels.device)
    of_texts = [model.encode_text(chunk, normalize=True) for chunk in ids.split(256)]
    return torch.cat(of_images), torch.cat(of_texts)


def recall(images: Tensor, texts: Tensor, k: int) -> float:
    """Image-to-text recall@k: share of images whose own text is among the k nearest.

    Args:
        images: unit embeddings `(N, D)`.
        texts: unit embeddings `(N, D)`, in the order of the images.
    """
    similarity = images @ texts.T
    rank = (similarity > similarity.diagonal()[:, None]).sum(dim=1)
    return float((rank < k).float().mean())


def save(model: CLIP, params: ClipParams, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a folder for `open_clip.create_model("local-dir:...")`, fp16 safetensors."""
    folder.mkdir(parents=True)
    resolution = model.visual.image_size[0]
    config = {
        "model_cfg": model_config(params, resolution, tokenizer),
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: w.to(torch.float16).contiguous() for name, w in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)


def text_model(model: CLIP, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text tower as the `CLIPTextModel` of a Stable Diffusion pipeline (same outputs)."""
    width = model.text_projection.shape[0]
    blocks = model.transformer.resblocks
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    hf = CLIPTextModel(config)
    hf.load_state_dict(text_weights(model), strict=True)
    return hf.eval()


def text_weights(model: CLIP) -> dict[str, Tensor]:
    """open_clip's text weights under the names of `transformers`, as views."""
    weights = {
        "embeddings.token_embedding.weight": model.token_embedding.weight,
        "embeddings.position_embedding.weight": model.positional_embedding,
        "final_layer_norm.weight": model.ln_final.weight,
        "final_layer_norm.bias": model.ln_final.bias,
    }
    return weights | layer_weights(model.transformer.resblocks)
