"""Training of one adapter on encoded shards; the text encoder runs only for live captions."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from jaxtyping import Float
from torch import Tensor

from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import WEIGHTS, save_adapter
from adapterbench.adapters.core.variant import Variant
from adapterbench.core.config import TrainParams
from adapterbench.core.environment import peak_memory_mb
from adapterbench.core.errors import UserError, one_line
from adapterbench.core.files import MANIFEST, publish, remove, write_json
from adapterbench.core.limits import check_memory
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.frozen.conditions import Texts, unet_inputs
from adapterbench.frozen.load import fingerprint, load_part
from adapterbench.frozen.texts import as_texts, load_text_encoders
from adapterbench.runs.resume import exclusive_run, resume_path
from adapterbench.training.batches import Batches, LocalBatches
from adapterbench.training.distributed import DistributedContext
from adapterbench.training.loop import FitResult, OnLog, fit
from adapterbench.training.loss import denoising_loss


@dataclass(frozen=True)
class Trained:
    """Costs and loss curve of a training run."""

    costs: dict[str, float]
    """The cost columns of the table, the last loss and the number of steps."""
    losses: list[tuple[int, float]]
    """(step, mean loss since the previous entry)."""

    def write(self, metrics: Path, curve: Path) -> None:
        """Write the costs as JSON and the loss curve as CSV."""
        write_json(metrics, self.costs)
        with publish(curve) as beside, beside.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerows([("step", "loss"), *self.losses])


def train_adapter(
    name: str,
    variant: Variant,
    params: TrainParams,
    encoded: Path,
    backbone: Path,
    out: Path,
    on_log: OnLog,
) -> Trained:
    """Train the variant and write `out` (see `adapters.core.storage`).

    After a kill the same command resumes at the last checkpoint and gives the same weights. The
    processes of `accelerate launch` share each batch; the main one writes.

    Args:
        name: of the variant, for the progress bar and the checkpoint.
        variant: the adapter to train.
        encoded: folder of stage `encode`.
        backbone: folder of the frozen model.
        on_log: called with the step and `loss`, `learning_rate`, `samples_per_second`, in the
            main process.

    Raises:
        UserError: the variant cannot be trained, an input is missing, or the loss is not finite.
    """
    check_trainable(name, variant)
    identity = fingerprint(backbone)
    facts = {"variant": variant.row(), "train": params, "backbone": identity}
    resume = resume_path(f"train-{name}", facts, encoded / MANIFEST).with_suffix(".safetensors")
    data = EncodedSplit(encoded, "train", patches=variant.reads_patches)
    context = DistributedContext(params.mixed_precision, params.accumulate)
    unet = load_part(backbone, "unet").to(context.device, memory_format=torch.channels_last)
    if params.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if params.compile:
        unet.compile()
    schedule = DDPMScheduler.from_config(load_part(backbone, "scheduler").config)
    torch.manual_seed(params.seed)
    adapter = build_adapter(variant, unet, data.embed_dim)
    check_width(name, adapter.embed_dim, data)
    # else autocast would cast the frozen weights at each call; the adapter has its own fp32 copies
    unet.type(context.dtype)
    adapter.attach(unet)
    encoders = None
    if data.live:
        encoders = load_text_encoders(backbone).to(context.device, context.dtype)
    empty = as_texts(data.empty[None].to(context.device), encoders)
    unconditional = data.unconditional.to(context.device)
    shape = data.row(0)[0].shape
    # every process draws the noise of the whole batch, so it does not depend on their number
    noise_bytes = 4 * params.batch_size * shape.numel()
    what = f"the noise of a batch of train.batch_size = {params.batch_size:,}"
    check_memory(noise_bytes, what, "lower it")
    share = context.share(params.batch_size)
    batches = Batches(LocalBatches(data, schedule, params, share), params.steps, context.device)

    def loss(step: int, _generator: torch.Generator, part: slice) -> Float[Tensor, ""]:
        local = slice(part.start - share.start, part.stop - share.start)
        batch = batches(step).map(lambda tensor: tensor[local])
        kept = as_texts(batch.texts, encoders)
        given = batch.image_embeds, kept
        embeds, texts = drop_conditions(*given, unconditional, empty, params, batch.drop)
        conditions = unet_inputs(texts, batch.latents, embeds[:, None])
        return denoising_loss(
            unet, schedule, batch.latents, conditions, batch.noise, batch.t, params.min_snr_gamma
        )

    context.reset_peak_memory()
    with exclusive_run(resume, is_main=context.is_main), out_of_memory_errors(params):
        fitted = fit(adapter.trainable_parameters(), loss, params, resume, on_log, name, context)
        if context.is_main:
            save_adapter(adapter, out, variant, {"digest": identity})
            remove(resume)
        context.accelerator.wait_for_everyone()
    all_costs = costs(adapter.count, fitted, params, out) | memory(context.peak_memory_mb())
    return Trained(all_costs, fitted.losses)


@contextmanager
def out_of_memory_errors(params: TrainParams) -> Iterator[None]:
    """Raise a `UserError` with remedies if a device runs out of memory in the block."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device is out of memory ({one_line(error, 120)}): raise train.accumulate "
            f"(now {params.accumulate}), which cuts the batch into smaller parts, lower "
            f"train.batch_size (now {params.batch_size}), or set train.gradient_checkpointing"
        ) from error


def check_trainable(name: str, variant: Variant) -> None:
    """Reject a variant that needs more than stage `encode` stores, before anything is loaded.

    Raises:
        UserError: it names its own image encoder.
    """
    if fields := variant.encoder.model_dump(exclude_none=True):
        raise UserError(
            f"variants.{name}.{min(fields)} is for adapters that `adapterbench "
            "adopt` imports: training here reads embeddings of stage encode, so remove it"
        )


def check_width(name: str, expected: int, data: EncodedSplit) -> None:
    """Check the width of the image prompts; only that of patches is a field of the row.

    Raises:
        UserError: the adapter reads image prompts of another width.
    """
    if expected != (stored := data.unconditional.shape[-1]):
        raise UserError(
            f"variants.{name}.patch_width = {expected}, but the image encoder's patches are "
            f"{stored} wide: set it to {stored}"
        )


def drop_conditions(
    image_embeds: Float[Tensor, " batch *features"],
    texts: Texts,
    unconditional: Float[Tensor, " *features"],
    empty: Texts,
    params: TrainParams,
    draw: Float[Tensor, " batch"],
) -> tuple[Float[Tensor, " batch *features"], Texts]:
    """Embeddings and texts with image, text or both dropped at random (IP-Adapter, section 3.3).

    A dropped image prompt becomes the unconditional one, a dropped text the empty caption.

    Args:
        image_embeds: embeddings `(B, c)` or patches `(B, S, p)`.
        texts: B embedded captions.
        unconditional: see `EncodedSplit`.
        empty: the embedded empty caption.
        draw: uniform numbers in [0, 1) that decide what is dropped, `(B,)`.
    """
    image_only, text_only = params.drop_image, params.drop_image + params.drop_text
    both = (draw >= text_only) & (draw < text_only + params.drop_both)
    no_image = (draw < image_only) | both
    no_text = ((draw >= image_only) & (draw < text_only)) | both
    dropped = no_image.reshape(-1, *[1] * unconditional.ndim)
    embeds = torch.where(dropped, unconditional, image_embeds)
    return embeds, empty.where(no_text, texts)


def costs(count: int, fitted: FitResult, params: TrainParams, model: Path) -> dict[str, float]:
    """Costs of the training under the names of the table's columns, except memory."""
    return {
        "trainable_params": count,
        "loss": fitted.losses[-1][1],
        "steps": params.steps,
        "train_seconds": round(fitted.seconds, 1),
        "images_per_second": round(fitted.samples_per_second, 1),
        "checkpoint_mb": round((model / WEIGHTS).stat().st_size / 2**20, 3),
    }


def memory(device: float | None) -> dict[str, float]:
    """Peak memory in MiB, under the names of the table's columns.

    Args:
        device: peak of the GPU; None on a CPU, where it is that of this process.
    """
    host = peak_memory_mb()
    return {"peak_memory_mb": host if device is None else device, "host_memory_mb": host}
