"""Generate images with several adapters, step by step, over a choice of base models.

Uses diffusers' pipelines with the public `load_adapter`.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, cast

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from adapterbench.adapters.core.storage import CONFIG, WEIGHTS
from adapterbench.core.config import NAME, RESERVED_NAMES, BackboneParams, EncodeParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import sha256
from adapterbench.demo.prompting import Inputs, arguments
from adapterbench.demo.settings import ALL_LAYERS, Settings, short
from adapterbench.demo.stream import stream
from adapterbench.exchange.pipeline import load_adapter
from adapterbench.exchange.presets import preset_names
from adapterbench.formats.edges import edge_map
from adapterbench.frozen.load import clip_name, has_part, load_clip, load_part
from adapterbench.report.methods import in_order, label
from adapterbench.sampling.sampler import solver

TEXT_ONLY = "text_only"
"""The method without an adapter."""
FINISHED = "[!.]*"
"""Pattern of complete folders; those of a killed stage are hidden."""
PREVIEW_SHARE = 0.3
"""Largest share of the time that previews may take."""


@dataclass(frozen=True, slots=True)
class Step:
    """A denoising step of an image has finished."""

    number: int
    """Of the image, from 0."""
    preview: Image.Image | None
    """The current estimate of the final image; None: not decoded, to save time."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A generated image with its settings."""

    number: int
    image: Image.Image
    settings: Settings


Event = Step | Finished
Emit = Callable[[Event], None]


def adapters(models: Path) -> list[str]:
    """Names of the trained adapters in `models`, in the order of the table.

    Raises:
        UserError: there is no trained adapter.
    """
    folders = {path.parent.name for path in models.glob(f"*/{CONFIG}")} - RESERVED_NAMES
    names = sorted(filter(NAME.fullmatch, folders))  # excludes temporary folders
    if not names:
        raise UserError(
            f"{models} has no trained adapter: run `make repro`, or copy the folder of a "
            "trained one there"
        )
    return in_order(names)


def presets(models: Path, methods: Sequence[str]) -> dict[str, list[str]]:
    """Methods by the name of a preset of layers that was measured for them."""
    named: dict[str, list[str]] = {}
    for method in methods:
        for name in preset_names(models / method):
            named.setdefault(name, []).append(method)
    return named


def bases(params: BackboneParams, folder: Path, others: Path) -> dict[str, Path]:
    """Folders of the base models by name; the first is the one of the training.

    Args:
        params: names the first one.
        folder: output of stage `backbone`.
        others: output of stage `bases`; may be missing.
    """
    other_bases = {
        path.parent.name: path.parent
        for path in sorted(others.glob(f"{FINISHED}/model_index.json"))
    }
    return {Path(params.path).name: folder, **other_bases}


class ImageGenerator:
    """Generates one image at a time, for all sessions."""

    def __init__(
        self,
        models: Path,
        bases: Mapping[str, Path],
        encode: EncodeParams,
        controlnet: Path | None = None,
    ) -> None:
        """Load the first base model, the image encoder and the ControlNet.

        Args:
            models: folder with a subfolder per adapter.
            bases: folders of compatible base models in diffusers layout, by name.
            encode: names the image encoder of the adapters.
            controlnet: folder of a ControlNet for edge maps in diffusers layout.

        Raises:
            UserError: an input is missing or damaged.
        """
        self.models, self.bases = models, bases
        self.methods = [*adapters(models), TEXT_ONLY]
        self.presets = presets(models, self.methods)
        self.load = lru_cache(maxsize=1)(self.load_base)  # one at a time: they are large
        self.load(next(iter(bases)))
        backbone = next(iter(bases.values()))
        self.clip = load_clip(clip_name(encode.image_encoder, backbone), encode.pretrained)
        self.controlnet = load_controlnet(controlnet) if controlnet else None
        self.lock = Lock()

    def load_base(self, name: str) -> StableDiffusionPipeline:
        """Load a base model as a pipeline, fp32.

        Raises:
            UserError: there is no base model of that name, or it is damaged.
        """
        if name not in self.bases:
            raise UserError(f"Base model is {short(name)}: choose one of {', '.join(self.bases)}")
        folder = self.bases[name]
        if has_part(folder, "text_encoder_2"):
            raise UserError(f"{folder} is an SDXL: the demo shows Stable Diffusion 1 and 2 only")
        names = ("vae", "text_encoder", "tokenizer", "unet")
        parts: dict[str, Any] = {part: load_part(folder, part) for part in names}
        # its types have an enumeration as a scheduler, and none without a checker
        parts |= {"scheduler": solver(folder), "safety_checker": None, "feature_extractor": None}
        pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def generate(self, images: Sequence[Settings], inputs: Inputs) -> Generator[Event, None, None]:
        """Generate images; yield every step and every image.

        Args:
            images: settings of each; those of a method stand together, all have the same base.
            inputs: the images that all of them are given.

        Raises:
            UserError: a preset of layers was not measured for a method.
        """
        self.check_layers(images)

        def work(emit: Emit) -> None:
            with self.lock:
                pipe, control = self.pipeline(images[0].base, inputs.control)
                by_method = groupby(enumerate(images), key=lambda pair: pair[1].method)
                for method, numbered in by_method:
                    with self.attached(pipe, method, inputs, images[0].fit) as (weights, guided):
                        for number, settings in numbered:
                            used = replace(settings, weights=weights)
                            self.generate_one(pipe, number, used, control | guided(used), emit)

        return stream(work)

    def check_layers(self, images: Sequence[Settings]) -> None:
        """Check that the adapters have the presets of layers.

        Raises:
            UserError: one was not measured.
        """
        for image in images:
            layers, method = image.layers, image.method
            if layers == ALL_LAYERS or method == TEXT_ONLY:
                continue
            if method not in self.presets.get(layers, []):
                raise UserError(
                    f"{label(method)} has no preset {short(layers)} of its layers: choose all "
                    "layers, or untick the adapter"
                )

    def pipeline(
        self, base: str, control: Image.Image | None
    ) -> tuple[Any, dict[str, Image.Image]]:
        """A base model's pipeline, with the ControlNet if there is a control image.

        Returns:
            The pipeline and its arguments.
        """
        pipe = self.load(base)
        if control is None:
            return pipe, {}
        return self.controlled(pipe), {"image": edge_map(control, side(pipe))}

    def controlled(self, pipe: StableDiffusionPipeline) -> StableDiffusionControlNetPipeline:
        """The pipeline with the ControlNet."""
        controlled = StableDiffusionControlNetPipeline(
            **pipe.components,
            controlnet=cast(ControlNetModel, self.controlnet),
            requires_safety_checker=False,
        )
        controlled.set_progress_bar_config(disable=True)
        return controlled

    def generate_one(
        self,
        pipe: Any,
        number: int,
        settings: Settings,
        inputs: Mapping[str, Any],
        emit: Emit,
    ) -> None:
        """Generate one image; `inputs` are additional arguments of the pipeline."""
        preview = Preview()

        def after_step(pipe: Any, _step: int, _t: Tensor, kept: dict[str, Any]) -> dict[str, Any]:
            emit(Step(number, preview(pipe)))
            return kept

        images = pipe(
            settings.text,
            negative_prompt=settings.negative_text,
            num_inference_steps=settings.steps,
            generator=torch.Generator().manual_seed(settings.seed),
            callback_on_step_end=after_step,
            **inputs,
        ).images
        emit(Finished(number, images[0], settings))

    @contextmanager
    def attached(
        self, pipe: Any, method: str, inputs: Inputs, fit: str
    ) -> Iterator[tuple[str | None, Callable[[Settings], dict[str, Any]]]]:
        """Attach a method's adapter, and detach it at the end.

        Yields:
            The digest of its weights, and a function from settings to the pipeline's arguments.
        """
        if method == TEXT_ONLY:
            yield None, lambda settings: {"guidance_scale": settings.guidance_scale}
            return
        folder = self.models / method
        digest, prompt = sha256(folder / WEIGHTS), load_adapter(pipe, folder, self.clip, fit=fit)
        try:
            yield digest, partial(arguments, prompt, inputs.encoded(prompt))
        finally:
            prompt.detach()


class Preview:
    """Decodes previews, as often as `PREVIEW_SHARE` allows on this machine."""

    def __init__(self) -> None:
        self.start, self.spent = perf_counter(), 0.0

    def __call__(self, pipe: Any) -> Image.Image | None:
        """Decode the solver's current estimate of the clean latents; None to save time."""
        begin = perf_counter()
        if self.spent > PREVIEW_SHARE * (begin - self.start):
            return None
        clean = pipe.scheduler.model_outputs[-1]  # x_0, as DPM-Solver++ predicts it
        pixels = pipe.vae.decode(clean / pipe.vae.config.scaling_factor).sample
        image: Image.Image = pipe.image_processor.postprocess(pixels)[0]
        self.spent += perf_counter() - begin
        return image


def side(pipe: Any) -> int:
    """Side of the model's images, pixels."""
    return int(pipe.unet.config.sample_size * pipe.vae_scale_factor)


def load_controlnet(folder: Path) -> ControlNetModel:
    """Load a ControlNet, frozen, fp32.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        loaded = ControlNetModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:300]
        raise UserError(f"cannot load the ControlNet {folder} ({cause}): train it again") from error
    return loaded.requires_grad_(False).eval().float()
