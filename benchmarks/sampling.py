"""Images a second of sampling: references in one batch against diffusers' own `load_ip_adapter`.

diffusers gives all images of a call the same image prompt, so the peer calls it once a reference,
for that one's K images. Both start from the same noise and the same embeddings, take the same
steps, and must give the same images; the peer is spared its image encoder, which ours has run in
stage `encode`.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import StableDiffusionPipeline
from more_itertools import chunked
from PIL import Image
from rich.console import Console
from turns import compare, timed

from adapterbench.adapters.core.storage import load_variant
from adapterbench.core.config import SampleParams, load_params
from adapterbench.exchange.ip_adapter import save_ip_adapter, to_ip_adapter
from adapterbench.runs.memory import keep_freed_memory
from adapterbench.sampling.items import noise
from adapterbench.sampling.sampler import Sampler, solver

WEIGHTS = "ip_adapter.safetensors"


def main(
    adapter: Annotated[Path, typer.Option(help="A linear, decoupled one.")] = Path(
        "models/ip_adapter"
    ),
    data: Annotated[Path, typer.Option(help="Folder of backbone and encoded.")] = Path("data"),
    items: Annotated[int, typer.Option(help="References.")] = 16,
    images: Annotated[int, typer.Option(help="Images of each.")] = 4,
    steps: Annotated[int | None, typer.Option(help="Solver steps (default: params.yaml).")] = None,
    rounds: Annotated[int, typer.Option(help="Timed turns of each way.")] = 5,
) -> None:
    """Compare the two ways of sampling; needs what `dvc repro train` leaves."""
    keep_freed_memory()  # as every stage does
    changes: dict[str, Any] = {"items": items, "images_per_item": images}
    changes |= {"steps": steps} if steps else {}
    params = load_params(SampleParams, "sample").model_copy(update=changes)
    sampler = Sampler(params, data / "encoded", data / "backbone", adapter)
    peer = stock(sampler, data / "backbone", adapter)
    ways = {
        f"batches of {params.batch_size} (ours)": lambda: ours(sampler),
        "diffusers, a call a reference": lambda: theirs(sampler, peer),
    }
    title = f"Sampling {items} x {images} images, {params.steps} steps, {threads()} threads"
    made = {name: timed(partial(count, way)) for name, way in ways.items()}
    compare(title, "images/s", made, rounds)
    first, second = (np.stack([np.asarray(i, float) for i in way()]) for way in ways.values())
    by = np.abs(first - second)
    found = f"the images differ by {by.mean():.3f} of 255 on the mean, {by.max():.0f} at most"
    Console(width=120).print(found)


def count(way: Callable[[], list[Image.Image]], _: int) -> int:
    """How many images a way makes."""
    return len(way())


def threads() -> int:
    """Threads of torch."""
    return torch.get_num_threads()


def ours(sampler: Sampler) -> list[Image.Image]:
    """What stage `sample` does."""
    batches = chunked(sampler.image_ids(), sampler.params.batch_size)
    return [image for batch in batches for image in sampler.make(batch, with_text=False)]


def theirs(sampler: Sampler, peer: StableDiffusionPipeline) -> list[Image.Image]:
    """What a user of diffusers does."""
    params, made = sampler.params, []
    for image_ids in chunked(sampler.image_ids(), params.images_per_item):
        latents = [noise(p.key, p.k, params.seed, sampler.shape) for p in image_ids]
        embeds = sampler.data.row(image_ids[0].number)[1].float()[None]
        made += peer(
            "",
            ip_adapter_image_embeds=[torch.stack([torch.zeros_like(embeds), embeds])],
            latents=torch.stack(latents),
            num_images_per_prompt=params.images_per_item,
            num_inference_steps=params.steps,
            guidance_scale=params.guidance_scale,
        ).images
    return made


def stock(sampler: Sampler, backbone: Path, adapter: Path) -> StableDiffusionPipeline:
    """diffusers' pipeline with the same adapter, by its own loader."""
    assert sampler.adapter
    variant = load_variant(adapter)
    weights = to_ip_adapter(sampler.adapter, sampler.unet, variant.projection)
    pipeline = StableDiffusionPipeline.from_pretrained(backbone, safety_checker=None)
    pipeline = pipeline.to(torch.float32)
    pipeline.scheduler = solver(backbone)
    with tempfile.TemporaryDirectory() as folder:
        save_ip_adapter(weights, Path(folder) / WEIGHTS)
        pipeline.load_ip_adapter(
            folder, subfolder="", weight_name=WEIGHTS, image_encoder_folder=None
        )
    pipeline.set_ip_adapter_scale(sampler.params.scale)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


if __name__ == "__main__":
    typer.run(main)
