"""The processes and devices of one training, by `accelerate`.

Every process draws the whole batch of a step and takes its own slice, so the batch is the same
whatever the number of processes. Gradients are averaged once a step.
"""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from adapterbench.core.config import Precision
from adapterbench.core.errors import UserError
from adapterbench.frozen.precision import DTYPES


class Team:
    """The processes that train together; alone without `accelerate launch`."""

    def __init__(self, mixed_precision: Precision = "no", accumulate: int = 1) -> None:
        """Join the others.

        Args:
            mixed_precision: `no`, `bf16` or `fp16`: what the forward pass computes in.
            accumulate: parts that a process cuts its share of a batch into, one in memory at a
                time.

        Raises:
            UserError: the device does not have this precision.
        """
        try:
            self.accelerator = Accelerator(mixed_precision=mixed_precision)
        except ValueError as error:
            raise UserError(f"train.mixed_precision = {mixed_precision!r}: {error}") from error
        # accelerate says nothing where a CPU is asked for fp16, and computes in fp32
        if mixed_precision != "no" and not self.accelerator.native_amp:
            raise UserError(
                f"train.mixed_precision = {mixed_precision!r} does not run on this machine's "
                f"{self.device.type}: choose no or bf16"
            )
        self.precision, self.accumulate = mixed_precision, accumulate

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def dtype(self) -> torch.dtype:
        """What the forward pass computes in."""
        return DTYPES[self.precision]

    @property
    def leads(self) -> bool:
        """Whether this process logs and saves for all."""
        return self.accelerator.is_main_process

    def share(self, batch: int) -> slice:
        """This process's share of a batch of `batch` samples, which `accumulate` divides.

        Raises:
            UserError: the batch cannot be cut so.
        """
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        size, rest = divmod(batch, processes)
        if rest or size % self.accumulate:
            raise UserError(
                f"batch_size {batch} cannot be cut into {processes} processes x accumulate "
                f"{self.accumulate} equal parts: change one of them"
            )
        return slice(rank * size, (rank + 1) * size)

    def parts(self, batch: int) -> list[slice]:
        """The equal parts of `share`.

        Raises:
            UserError: the batch cannot be cut so.
        """
        share = self.share(batch)
        size = (share.stop - share.start) // self.accumulate
        return [slice(at, at + size) for at in range(share.start, share.stop, size)]

    def backward(
        self,
        loss: Callable[[slice], Tensor],
        parts: Sequence[slice],
        weights: Sequence[nn.Parameter],
    ) -> Float[Tensor, ""]:
        """Add the gradients of the whole batch's mean loss to `weights`; return that loss.

        Args:
            loss: scalar mean loss of a part of the batch.
            parts: what `parts` gave.
        """
        total = torch.zeros((), device=self.device)
        for part in parts:
            with self.accelerator.autocast():
                value = loss(part) / len(parts)
            self.accelerator.backward(value)
            total = total + value.detach()
        return self.average(total, weights) if self.accelerator.num_processes > 1 else total

    def may_skip(self) -> bool:
        """Whether fp16's scale may make a gradient overflow; the step is then skipped.

        The scale is halved each time; below 1 it enlarges nothing any more.
        """
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.get_scale() >= 1

    def reset_peak_memory(self) -> None:
        """Measure `peak_memory_mb` from now on."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory_mb(self) -> float | None:
        """Most memory of a GPU that tensors have held at once, MiB; None: the device is a CPU."""
        if self.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)

    def average(
        self, loss: Float[Tensor, ""], weights: Sequence[nn.Parameter]
    ) -> Float[Tensor, ""]:
        """Average the gradients over the processes, in place; return the mean loss."""
        touched = [weight for weight in weights if weight.grad is not None]
        gradients = self.accelerator.reduce([weight.grad for weight in touched], "mean")
        for weight, gradient in zip(touched, gradients, strict=True):
            weight.grad = gradient
        mean: Tensor = self.accelerator.reduce(loss, "mean")
        return mean
