"""Frozen models from a local folder in diffusers layout, and CLIPs by their open_clip name."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from adapterbench.core.documents import read_document
from adapterbench.core.errors import InputError, UserError, one_line
from adapterbench.core.files import sha256
from adapterbench.core.imports import fast_imports
from adapterbench.frozen.trial import check_usable

PARTS = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "PreTrainedModel"),
    "tokenizer": ("transformers", "PreTrainedTokenizerBase"),
    "scheduler": ("diffusers", "SchedulerMixin"),
}
"""Parts of a pipeline: the library and the class that each is, or is a kind of."""
LOCAL = "local-dir:"
"""What open_clip's name of a model on this machine begins with."""
IN_BACKBONE = "backbone:"
"""What the name of a CLIP in a folder of the backbone begins with, in parameters."""
ENCODER = "image_encoder"
"""Folder of a backbone with the CLIP that its adapters are conditioned by."""
FIRST = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""Weights that open_clip prefers to any other file."""


def fingerprint(backbone: Path) -> str:
    """Digest of the names and contents of a model's files: tells two backbones apart."""
    files = sorted(path for path in backbone.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(backbone).as_posix()} {sha256(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_part(backbone: Path, part: str) -> Any:
    """A part of the pipeline, such as `unet` or `vae`: frozen, in fp32, in evaluation mode.

    Raises:
        UserError: the folder or the part is missing or damaged, or it cannot be used.
    """
    kind, folder = part_class(backbone, part), backbone / part
    if not folder.is_dir():
        raise InputError(f"{folder} is missing", folder)
    try:
        loaded = kind.from_pretrained(folder, local_files_only=True, **options(kind))
        if isinstance(loaded, tuple):
            loaded = complete(*loaded)
        if isinstance(loaded, nn.Module):
            loaded.requires_grad_(False).eval().float()
        check_usable(part, loaded)
    except Exception as error:  # both libraries raise many kinds on a damaged configuration
        raise InputError(f"cannot load {folder} ({one_line(error)})", folder) from error
    return loaded


def options(kind: type) -> dict[str, bool]:
    """What a class is loaded with, so that it reads numbers alone, no pickle and no code."""
    found = {}
    if issubclass(kind, nn.Module):
        found = {"use_safetensors": True, "output_loading_info": True}
    if kind.__module__.startswith("transformers."):  # diffusers takes code for whole pipelines only
        found["trust_remote_code"] = False
    return found


def complete(network: nn.Module, report: Mapping[str, Any]) -> nn.Module:
    """The network, where its file has all of its weights: both libraries draw those that lack.

    Raises:
        ValueError: it has not.
    """
    if lacking := sorted(report["missing_keys"]):
        raise ValueError(f"{len(lacking)} weights are missing, such as {lacking[0]}")
    return network


def part_class(backbone: Path, part: str) -> Any:
    """The class that `model_index.json` names for a part.

    It is concrete: the libraries' `Auto` classes, which may load code from beside the weights, are
    not of the kinds in `PARTS`.

    Raises:
        UserError: there is no such file or part, or it is of another kind.
    """
    path = backbone / "model_index.json"
    index = read_document(dict[str, Any], path, "the index of a pipeline")
    if part not in index:
        raise UserError(f"{backbone} has no {part}: is it a Stable Diffusion in diffusers layout?")
    library, base = PARTS[part]
    with fast_imports():  # the libraries import a class when it is asked for
        module = import_module(library)
        known = getattr(module, base)
        match index[part]:
            case [str(owner), str(name)] if owner == library:
                kind = getattr(module, name, None)
            case _:
                kind = None
    if not (isinstance(kind, type) and issubclass(kind, known)):
        named = one_line(json.dumps(index[part]))
        raise UserError(
            f"the {part} of {backbone} is {named}, which is not known here: it must be a "
            f"{library}.{base}"
        )
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

    def image_embeds(self, images: list[Any]) -> Tensor:
        """PIL images -> embeddings `(N, D)`, not normalised."""
        return self.pixel_embeds(torch.stack([self.preprocess(image) for image in images]))

    @torch.no_grad()
    def pixel_embeds(self, pixels: Tensor) -> Tensor:
        """Preprocessed images `(N, 3, H, W)` -> embeddings `(N, D)`, not normalised."""
        return self.model.encode_image(pixels.to(self.device)).cpu()

    def check_usable(self) -> None:
        """Embed an image and a text, which a configuration that loads may not allow.

        Raises:
            Exception: of any kind; it cannot be used.
        """
        blank = Image.new("RGB", (8, 8))
        for embeds in (self.image_embeds([blank]), self.text_embeds(["a"])):
            if embeds.shape != (1, self.embed_dim) or not embeds.isfinite().all():
                raise ValueError(f"it gives no finite embeddings {self.embed_dim} wide")

    @torch.no_grad()
    def text_embeds(self, texts: list[str]) -> Tensor:
        """Texts -> embeddings `(N, D)`, not normalised."""
        return self.model.encode_text(self.tokenize(texts).to(self.device)).cpu()


def clip_name(name: str, backbone: Path) -> str:
    """open_clip's name of a CLIP; `backbone:PATH` is relative to the folder of the backbone."""
    if not name.startswith(IN_BACKBONE):
        return name
    return f"{LOCAL}{backbone / name.removeprefix(IN_BACKBONE)}"


def bundled_encoder(backbone: Path) -> str | None:
    """open_clip's name of the image encoder that a backbone brings, if it does."""
    known = (backbone / ENCODER / "open_clip_config.json").is_file()
    return clip_name(f"{IN_BACKBONE}{ENCODER}", backbone) if known else None


def load_clip(name: str, pretrained: str | None) -> Clip:
    """Load an open_clip model, such as `ViT-B-32` or `local-dir:PATH`; none of its code runs.

    Raises:
        UserError: no such model or weights, they are not to be had without network, they are a
            pickle, or the model asks for code of its own.
    """
    with fast_imports():
        import open_clip

    config = clip_config(name)
    try:
        if name.startswith(LOCAL):
            check_weights(Path(name.removeprefix(LOCAL)))
        with no_questions():
            model, preprocess = open_clip.create_model_from_pretrained(name, pretrained=pretrained)
            tokenize = open_clip.get_tokenizer(name, **tokenizer_options(config))
        model.requires_grad_(False).eval()
        clip = Clip(model, preprocess, tokenize, config["embed_dim"])
        clip.check_usable()
    except Exception as error:  # open_clip raises many kinds
        raise clip_error(name, error) from error
    return clip


def check_weights(folder: Path) -> None:
    """Refuse the folder of a CLIP of which open_clip would read a pickle.

    Raises:
        FileNotFoundError: it would, or there are no weights at all.
    """
    files = {path.name for path in folder.iterdir()}
    pickles = {name for name in files if name.endswith((".bin", ".pth"))}
    safe = {name for name in files if name.endswith(".safetensors")}
    if not safe or (pickles and not safe.intersection(FIRST)):
        raise FileNotFoundError(f"its weights are not in {FIRST[0]}, and pickles are never read")


def clip_config(name: str) -> dict[str, Any]:
    """The configuration of an open_clip model: `embed_dim`, `vision_cfg`, `text_cfg`.

    Raises:
        UserError: there is none, or it asks for code of the model's own.
    """
    import open_clip

    try:
        config: dict[str, Any] = open_clip.get_model_config(name)
        if config is None:
            raise LookupError("open_clip knows no such model")
        if asks_for_code(config):
            raise ValueError("it asks for code of its own (trust_remote_code), which is never run")
        if not isinstance(config["embed_dim"], int):
            raise TypeError("embed_dim is no number")
    except Exception as error:  # JSON of any structure
        raise clip_error(name, error) from error
    return config


def asks_for_code(config: Any) -> bool:
    """Whether a configuration would have transformers run code, at any depth of it."""
    if isinstance(config, list):
        return any(map(asks_for_code, config))
    if not isinstance(config, dict):
        return False
    asks = config.get("trust_remote_code") or "auto_map" in config
    return bool(asks) or any(map(asks_for_code, config.values()))


def tokenizer_options(config: Mapping[str, Any]) -> dict[str, bool]:
    """What `open_clip.get_tokenizer` hands on to transformers, where that makes the tokenizer."""
    return {"trust_remote_code": False} if config["text_cfg"].get("hf_tokenizer_name") else {}


@contextmanager
def no_questions() -> Iterator[None]:
    """Let transformers refuse remote code where open_clip says nothing of it.

    It would ask at the terminal whether to run it.
    """
    from transformers import dynamic_module_utils as asking

    before = asking.TIME_OUT_REMOTE_CODE
    asking.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        asking.TIME_OUT_REMOTE_CODE = before


def clip_error(name: str, error: Exception) -> UserError:
    """Why a CLIP cannot be loaded, and what to do."""
    return UserError(
        f"cannot load the CLIP {name!r} ({one_line(error)}): "
        f"name a local copy as `{LOCAL}PATH`, or check the name and the network"
    )
