"""Frozen models from a local folder in diffusers layout, and CLIPs by their open_clip name."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from adapterbench.core.errors import UserError
from adapterbench.core.files import read_json, sha256

log = logging.getLogger(__name__)


def fingerprint(backbone: Path) -> str:
    """Digest of the names and contents of a model's files: tells two backbones apart."""
    files = sorted(path for path in backbone.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(backbone).as_posix()} {sha256(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_part(backbone: Path, part: str) -> Any:
    """A part of the pipeline, such as `unet` or `vae`: frozen, in fp32, in evaluation mode.

    Raises:
        UserError: the folder or the part is missing or damaged.
    """
    kind, folder = part_class(backbone, part), backbone / part
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: run `dvc repro backbone` to bring it")
    # weights are never read from a pickle
    options = {"use_safetensors": True} if issubclass(kind, nn.Module) else {}
    try:
        loaded = kind.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        cause = " ".join(str(error).split())[:300]
        raise UserError(
            f"cannot load {folder} ({cause}): run `dvc repro backbone` to bring it again"
        ) from error
    if isinstance(loaded, nn.Module):
        loaded.requires_grad_(False).eval().float()
    return loaded


def part_class(backbone: Path, part: str) -> Any:
    """The class that `model_index.json` names for a part.

    Raises:
        UserError: there is no such file, part or class.
    """
    import diffusers
    import transformers

    index = read_json(backbone / "model_index.json")
    if part not in index:
        raise UserError(f"{backbone} has no {part}: is it a Stable Diffusion in diffusers layout?")
    library, name = index[part]
    libraries = {"diffusers": diffusers, "transformers": transformers}
    kind = getattr(libraries.get(library), str(name), None)
    if kind is None:
        raise UserError(f"the {part} of {backbone} is a {library}.{name}, which is not known here")
    return kind


@dataclass(frozen=True)
class Clip:
    """A frozen CLIP with its own preprocessing."""

    model: Any
    preprocess: Callable[[Any], Tensor]
    """PIL image -> `(3, H, W)`."""
    tokenize: Callable[[list[str]], Tensor]
    """Texts -> token ids `(N, L)`."""
    embed_dim: int

    def to(self, device: torch.device | str) -> "Clip":
        """Move the networks to `device`; embeddings are on the CPU all the same."""
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(iter(self.model.parameters())).device

    @torch.no_grad()
    def image_embeds(self, images: list[Any]) -> Tensor:
        """PIL images -> embeddings `(N, D)`, not normalised."""
        pixels = torch.stack([self.preprocess(image) for image in images])
        return self.model.encode_image(pixels.to(self.device)).cpu()

    @torch.no_grad()
    def text_embeds(self, texts: list[str]) -> Tensor:
        """Texts -> embeddings `(N, D)`, not normalised."""
        return self.model.encode_text(self.tokenize(texts).to(self.device)).cpu()


def load_clip(name: str, pretrained: str | None) -> Clip:
    """Load an open_clip model, such as `ViT-B-32` or `local-dir:PATH`.

    Raises:
        UserError: no such model or weights, or they are not to be had without network.
    """
    import open_clip

    try:
        model, preprocess = open_clip.create_model_from_pretrained(name, pretrained=pretrained)
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip raises many kinds
        cause = " ".join(str(error).split())[:300]
        raise UserError(
            f"cannot load the CLIP {name!r} ({cause}): "
            "name a local copy as `local-dir:PATH`, or check the name and the network"
        ) from error
    model.requires_grad_(False).eval()
    dim = int(open_clip.get_model_config(name)["embed_dim"])
    return Clip(model, preprocess, tokenize, dim)
