"""Loads frozen models from a local folder in diffusers layout, and CLIPs by open_clip name."""

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
    "text_encoder_2": ("transformers", "PreTrainedModel"),
    "tokenizer": ("transformers", "PreTrainedTokenizerBase"),
    "tokenizer_2": ("transformers", "PreTrainedTokenizerBase"),
    "scheduler": ("diffusers", "SchedulerMixin"),
}
"""Parts of a pipeline: the library and the base class of each."""
LOCAL = "local-dir:"
"""open_clip's prefix of a local folder."""
IN_BACKBONE = "backbone:"
"""Prefix, in parameters, of a CLIP in a folder of the backbone."""
ENCODER = "image_encoder"
"""Folder of a backbone with the CLIP that encodes image prompts."""
PREFERRED = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""Weights that open_clip prefers to any other file."""


def fingerprint(backbone: Path) -> str:
    """Digest of the names and contents of a model's files; identifies a backbone."""
    files = sorted(path for path in backbone.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(backbone).as_posix()} {sha256(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_part(backbone: Path, part: str) -> Any:
    """A part of the pipeline, such as `unet` or `vae`: frozen, in fp32, in evaluation mode.

    Raises:
        UserError: the folder or the part is missing, damaged or unusable.
    """
    kind, folder = part_class(backbone, part), backbone / part
    if not folder.is_dir():
        raise InputError(f"{folder} is missing", folder)
    try:
        loaded = kind.from_pretrained(folder, local_files_only=True, **safe_options(kind))
        if isinstance(loaded, tuple):
            loaded = check_complete(*loaded)
        if isinstance(loaded, nn.Module):
            loaded.requires_grad_(False).eval().float()
        check_usable(part, loaded)
    except Exception as error:  # both libraries raise many types on a damaged configuration
        raise InputError(f"cannot load {folder} ({one_line(error)})", folder) from error
    return loaded


def safe_options(kind: type) -> dict[str, bool]:
    """Arguments of `from_pretrained` with which a class reads tensors only, no pickle, no code."""
    options = {}
    if issubclass(kind, nn.Module):
        options = {"use_safetensors": True, "output_loading_info": True}
    if kind.__module__.startswith("transformers."):  # diffusers takes code for whole pipelines only
        options["trust_remote_code"] = False
    return options


def check_complete(network: nn.Module, report: Mapping[str, Any]) -> nn.Module:
    """Check that the file had all weights; both libraries draw missing ones at random.

    Raises:
        ValueError: weights are missing.
    """
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
    return network


def pipeline_index(backbone: Path) -> dict[str, Any]:
    """Library and class of each part of a pipeline, by `model_index.json`.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    path = backbone / "model_index.json"
    return read_document(dict[str, Any], path, "the index of a pipeline")


def has_part(backbone: Path, part: str) -> bool:
    """Whether a pipeline has a part; an optional one may be listed as [null, null].

    Raises:
        UserError: see `pipeline_index`.
    """
    return pipeline_index(backbone).get(part) not in (None, [None, None])


def part_class(backbone: Path, part: str) -> Any:
    """The class that `model_index.json` names for a part.

    It must derive from the base class in `PARTS`. The libraries' `Auto` classes, which may run code
    that lies beside the weights, do not.

    Raises:
        UserError: there is no such file or part, or it is of another class.
    """
    index = pipeline_index(backbone)
    if part not in index:
        raise UserError(f"{backbone} has no {part}: is it a Stable Diffusion in diffusers layout?")
    library, base = PARTS[part]
    with fast_imports():  # the libraries import classes lazily
        module = import_module(library)
        known = getattr(module, base)
        match index[part]:
            case [str(owner), str(name)] if owner == library:
                kind = getattr(module, name, None)
            case _:
                kind = None
    if not (isinstance(kind, type) and issubclass(kind, known)):
        class_name = one_line(json.dumps(index[part]))
        raise UserError(
            f"the {part} of {backbone} is {class_name}, which is not supported: it must be a "
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
        """Move the networks to `device`; embeddings are returned on the CPU."""
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(iter(self.model.parameters())).device

    def image_embeds(self, images: list[Any]) -> Tensor:
        """PIL images -> embeddings `(N, D)`, not normalised."""
        return self.pixel_embeds(torch.stack([self.preprocess(image) for image in images]))

    @torch.no_grad()
    def pixel_embeds(self, pixels: Tensor) -> Tensor:
        """Preprocessed images `(N, 3, H, W)` -> embeddings `(N, D)`, not normalised."""
        return self.model.encode_image(pixels.to(self.device)).cpu()

    def check_usable(self) -> None:
        """Embed an image and a text, to check a configuration that has loaded.

        Raises:
            Exception: of any type; the model is unusable.
        """
        image = Image.new("RGB", (8, 8))
        for embeds in (self.image_embeds([image]), self.text_embeds(["a"])):
            if embeds.shape != (1, self.embed_dim) or not embeds.isfinite().all():
                raise ValueError(f"its embeddings are not finite or not {self.embed_dim} wide")

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
    """open_clip name of the image encoder in the folder of a backbone; None if it has none."""
    exists = (backbone / ENCODER / "open_clip_config.json").is_file()
    return clip_name(f"{IN_BACKBONE}{ENCODER}", backbone) if exists else None


def load_clip(name: str, pretrained: str | None) -> Clip:
    """Load an open_clip model, such as `ViT-B-32` or `local-dir:PATH`; none of its code runs.

    Raises:
        UserError: no such model or weights, they are not available offline or are a pickle, or
            the model asks for remote code.
    """
    with fast_imports():
        import open_clip

    config = clip_config(name)
    try:
        if name.startswith(LOCAL):
            check_weights(Path(name.removeprefix(LOCAL)))
        with no_code_prompt():
            model, preprocess = open_clip.create_model_from_pretrained(name, pretrained=pretrained)
            tokenize = open_clip.get_tokenizer(name, **tokenizer_options(config))
        model.requires_grad_(False).eval()
        clip = Clip(model, preprocess, tokenize, config["embed_dim"])
        clip.check_usable()
    except Exception as error:  # open_clip raises many types
        raise clip_error(name, error) from error
    return clip


def check_weights(folder: Path) -> None:
    """Reject a folder from which open_clip would load a pickle.

    Raises:
        FileNotFoundError: it would, or there are no weights.
    """
    files = {path.name for path in folder.iterdir()}
    pickles = {name for name in files if name.endswith((".bin", ".pth"))}
    safe = {name for name in files if name.endswith(".safetensors")}
    if not safe or (pickles and not safe.intersection(PREFERRED)):
        raise FileNotFoundError(
            f"its weights are not in {PREFERRED[0]}, and pickles are never read"
        )


def clip_config(name: str) -> dict[str, Any]:
    """The configuration of an open_clip model: `embed_dim`, `vision_cfg`, `text_cfg`.

    Raises:
        UserError: there is none, or it asks for remote code.
    """
    import open_clip

    try:
        config: dict[str, Any] = open_clip.get_model_config(name)
        if config is None:
            raise LookupError("open_clip has no such model")
        if asks_for_remote_code(config):
            raise ValueError("it asks for remote code (trust_remote_code), which is never run")
        if not isinstance(config["embed_dim"], int):
            raise TypeError("embed_dim is not an integer")
    except Exception as error:  # JSON of any structure
        raise clip_error(name, error) from error
    return config


def asks_for_remote_code(config: Any) -> bool:
    """Whether any level of a configuration makes transformers run remote code."""
    if isinstance(config, list):
        return any(map(asks_for_remote_code, config))
    if not isinstance(config, dict):
        return False
    asks = config.get("trust_remote_code") or "auto_map" in config
    return bool(asks) or any(map(asks_for_remote_code, config.values()))


def tokenizer_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that `open_clip.get_tokenizer` passes to the tokenizers of transformers."""
    return {"trust_remote_code": False} if config["text_cfg"].get("hf_tokenizer_name") else {}


@contextmanager
def no_code_prompt() -> Iterator[None]:
    """Make transformers refuse remote code instead of asking at the terminal.

    open_clip does not always pass `trust_remote_code=False`.
    """
    from transformers import dynamic_module_utils as asking

    before = asking.TIME_OUT_REMOTE_CODE
    asking.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        asking.TIME_OUT_REMOTE_CODE = before


def clip_error(name: str, error: Exception) -> UserError:
    """The error for a CLIP that cannot be loaded."""
    return UserError(
        f"cannot load the CLIP {name!r} ({one_line(error)}): "
        f"name a local copy as `{LOCAL}PATH`, or check the name and the network"
    )
