"""Generate images with several adapters, step by step, over a choice of base models.

Uses diffusers' pipelines with the public `load_adapter`.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, cast

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from adapterbench.adapters.core.storage import CONFIG
from adapterbench.core.config import NAME, RESERVED_NAMES, BackboneParams, EncodeParams
from adapterbench.core.errors import UserError
from adapterbench.demo.settings import Settings, short
from adapterbench.demo.stream import stream
from adapterbench.exchange.pipeline import load_adapter
from adapterbench.formats.edges import edge_map
from adapterbench.frozen.load import clip_name, has_part, load_clip, load_part
from adapterbench.report.methods import in_order
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

    method: str
    preview: Image.Image | None
    """The current estimate of the final image; None: not decoded, to save time."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A generated image with its settings."""

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

    def generate(
        self,
        settings: Settings,
        methods: Sequence[str],
        reference: Image.Image,
        control: Image.Image | None = None,
    ) -> Generator[Event, None, None]:
        """Generate an image by each method from the same noise; yield every step and every image.

        Args:
            settings: common settings; `method` is replaced for each image.
            methods: some of `self.methods`.
            reference: the image prompt, RGB.
            control: image whose edges the ControlNet keeps, RGB.
        """
        embedding = self.clip.image_embeds([reference])[0]

        def work(emit: Emit) -> None:
            with self.lock:
                base, inputs = self.load(settings.base), dict[str, Image.Image]()
                if control:
                    inputs = {"image": edge_map(control, side(base))}
                pipe = self.controlled(base) if control else base
                for method in methods:
                    self.generate_one(
                        pipe, replace(settings, method=method), embedding, inputs, emit
                    )

        return stream(work)

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
        settings: Settings,
        embedding: Tensor,
        inputs: Mapping[str, Any],
        emit: Emit,
    ) -> None:
        """Generate one image; `inputs` are additional arguments of the pipeline."""
        preview = Preview()

        def after_step(pipe: Any, _step: int, _t: Tensor, kept: dict[str, Any]) -> dict[str, Any]:
            emit(Step(settings.method, preview(pipe)))
            return kept

        with self.image_prompt(pipe, settings, embedding) as guided:
            images = pipe(
                settings.text,
                negative_prompt=settings.negative_text,
                num_inference_steps=settings.steps,
                generator=torch.Generator().manual_seed(settings.seed),
                callback_on_step_end=after_step,
                **inputs,
                **guided,
            ).images
        emit(Finished(images[0], settings))

    @contextmanager
    def image_prompt(
        self, pipe: Any, settings: Settings, embedding: Tensor
    ) -> Iterator[dict[str, Any]]:
        """Attach the method's adapter; yield the pipeline's arguments; detach it at the end."""
        if settings.method == TEXT_ONLY:
            yield {"guidance_scale": settings.guidance_scale}
            return
        prompt = load_adapter(pipe, self.models / settings.method)
        try:
            yield prompt(embedding, settings.scale, settings.guidance_scale)
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
