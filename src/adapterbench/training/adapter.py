"""Train one adapter on encoded shards; of the frozen encoders, at most that of texts is called."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from adapterbench.frozen.load import fingerprint, load_part
from adapterbench.frozen.prompts import unconditional_embeds
from adapterbench.frozen.texts import as_embeddings
from adapterbench.runs.resume import alone, resume_path
from adapterbench.training.batches import Batches, Shares
from adapterbench.training.distributed import Team
from adapterbench.training.loop import Fitted, OnLog, fit
from adapterbench.training.loss import denoising_loss


@dataclass(frozen=True)
class Trained:
    """What a training took and how its loss went."""

    costs: dict[str, float]
    """The table's cost columns, with the last loss and the steps."""
    losses: list[tuple[int, float]]
    """(step, mean loss since the entry before)."""

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

    The same command after a kill goes on at the last checkpoint and ends with the same weights.
    Processes that `accelerate launch` starts share each batch; one of them writes.

    Args:
        name: of the variant, for the progress bar and the checkpoint.
        variant: what is trained.
        encoded: folder of stage `encode`.
        backbone: folder of the frozen model.
        on_log: called with the step and `loss`, `learning_rate`, `samples_per_second`, in the
            process that leads.

    Raises:
        UserError: a variant that cannot be trained, a missing input, or a loss that is not finite.
    """
    check_trainable(name, variant)
    identity = fingerprint(backbone)
    facts = {"variant": variant.row(), "train": params, "backbone": identity}
    resume = resume_path(f"train-{name}", facts, encoded / MANIFEST).with_suffix(".safetensors")
    data = EncodedSplit(encoded, "train")
    team = Team(params.mixed_precision, params.accumulate)
    unet = load_part(backbone, "unet").to(team.device, memory_format=torch.channels_last)
    if params.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if params.compile:
        unet.compile()
    schedule = DDPMScheduler.from_config(load_part(backbone, "scheduler").config)
    torch.manual_seed(params.seed)
    adapter = build_adapter(variant, unet, data.embed_dim)
    # autocast would cast frozen weights anew at each call; the adapter has its copies in fp32
    unet.type(team.dtype)
    adapter.attach(unet)
    text_encoder = None
    if data.live:
        text_encoder = load_part(backbone, "text_encoder").to(team.device, team.dtype)
    empty = as_embeddings(data.empty[None].to(team.device), text_encoder)[0]
    shape = data.row(0)[0].shape
    # every process draws the noise of the whole batch, so that it depends on nothing else
    noise_bytes = 4 * params.batch_size * shape.numel()
    what = f"the noise of a batch of train.batch_size = {params.batch_size:,}"
    check_memory(noise_bytes, what, "lower it")
    share = team.share(params.batch_size)
    batches = Batches(Shares(data, schedule, params, share), params.steps, team.device)

    def loss(step: int, _generator: torch.Generator, part: slice) -> Float[Tensor, ""]:
        own = slice(part.start - share.start, part.stop - share.start)
        batch = batches(step).each(lambda tensor: tensor[own])
        texts = as_embeddings(batch.texts, text_encoder)
        conditions = drop_conditions(batch.image_embeds, texts, empty, params, batch.drop)
        return denoising_loss(
            unet, schedule, batch.latents, conditions, batch.noise, batch.t, params.min_snr_gamma
        )

    team.reset_peak_memory()
    with alone(resume, leads=team.leads), little_memory(params):
        fitted = fit(adapter.trainable_parameters(), loss, params, resume, on_log, name, team)
        if team.leads:
            save_adapter(adapter, out, variant, {"digest": identity})
            remove(resume)
        team.accelerator.wait_for_everyone()
    taken = costs(adapter.count, fitted, params, out) | memory(team.peak_memory_mb())
    return Trained(taken, fitted.losses)


@contextmanager
def little_memory(params: TrainParams) -> Iterator[None]:
    """Say in one line how to need less where the memory of a device is used up in the block.

    Raises:
        UserError: it is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device has not enough memory ({one_line(error, 120)}): raise train.accumulate "
            f"(now {params.accumulate}), which cuts the batch into smaller parts, lower "
            f"train.batch_size (now {params.batch_size}), or set train.gradient_checkpointing"
        ) from error


def check_trainable(name: str, variant: Variant) -> None:
    """Refuse a variant that reads what stage `encode` does not make, before anything is loaded.

    Raises:
        UserError: it names an image encoder of its own, or its projection reads patches.
    """
    if own := variant.encoder.model_dump(exclude_none=True):
        raise UserError(
            f"variants.{name}.{min(own)} is of adapters from elsewhere, brought by `adapterbench "
            "adopt`: what is trained here reads what stage encode made, so leave it out"
        )
    if variant.reads_patches:
        raise UserError(
            f"variants.{name}.projection = {variant.projection!r} reads patches, of which stage "
            "encode keeps none: take a projection that reads the image embedding, such as linear, "
            "or bring a trained adapter with `adapterbench adopt`"
        )


def drop_conditions(
    image_embeds: Float[Tensor, "batch embed"],
    texts: Float[Tensor, "batch text dim"],
    empty: Float[Tensor, "text dim"],
    params: TrainParams,
    draw: Float[Tensor, " batch"],
) -> dict[str, Any]:
    """The UNet's conditions, with image, text or both dropped at random (IP-Adapter, section 3.3).

    A dropped image prompt is the unconditional one, a dropped text the empty caption.

    Args:
        image_embeds: `(B, c)`.
        texts: embedded captions `(B, L, D)`.
        empty: the embedded empty caption `(L, D)`.
        draw: what is dropped, by number in [0, 1) `(B,)`.
    """
    image_only, text_only = params.drop_image, params.drop_image + params.drop_text
    both = (draw >= text_only) & (draw < text_only + params.drop_both)
    no_image = (draw < image_only) | both
    no_text = ((draw >= image_only) & (draw < text_only)) | both
    embeds = torch.where(no_image[:, None], unconditional_embeds(image_embeds), image_embeds)
    text = torch.where(no_text[:, None, None], empty, texts)
    return {
        "encoder_hidden_states": text,
        "added_cond_kwargs": {"image_embeds": [embeds[:, None]]},
    }


def costs(count: int, fitted: Fitted, params: TrainParams, model: Path) -> dict[str, float]:
    """What the training took, as the table's columns name it, but for the memory."""
    return {
        "trainable_params": count,
        "loss": fitted.losses[-1][1],
        "steps": params.steps,
        "train_seconds": round(fitted.seconds, 1),
        "images_per_second": round(fitted.samples_per_second, 1),
        "checkpoint_mb": round((model / WEIGHTS).stat().st_size / 2**20, 3),
    }


def memory(device: float | None) -> dict[str, float]:
    """Most memory held at once, MiB, as the table's columns name it.

    Args:
        device: of the GPU; None for a CPU, whose memory is that of this process on its host.
    """
    host = peak_memory_mb()
    return {"peak_memory_mb": host if device is None else device, "host_memory_mb": host}
