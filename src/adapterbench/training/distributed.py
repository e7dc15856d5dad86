"""Distributed training with `accelerate`.

Every process draws the whole batch of a step and uses its slice, so the batch does not depend on
the number of processes. Gradients are averaged once per step.
"""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from adapterbench.core.config import Precision
from adapterbench.core.errors import UserError
from adapterbench.frozen.precision import DTYPES


class DistributedContext:
    """The processes of a training run; a single one without `accelerate launch`."""

    def __init__(self, mixed_precision: Precision = "no", accumulate: int = 1) -> None:
        """Join the process group.

        Args:
            mixed_precision: precision of the forward pass: `no`, `bf16` or `fp16`.
            accumulate: micro-batches per process and step; one is in memory at a time.

        Raises:
            UserError: the device does not support this precision.
        """
        try:
            self.accelerator = Accelerator(mixed_precision=mixed_precision)
        except ValueError as error:
            raise UserError(f"train.mixed_precision = {mixed_precision!r}: {error}") from error
        # with fp16 on a CPU, accelerate silently computes in fp32
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
        """Data type of the forward pass."""
        return DTYPES[self.precision]

    @property
    def is_main(self) -> bool:
        """Whether this process logs and saves."""
        return self.accelerator.is_main_process

    def share(self, batch: int) -> slice:
        """The slice of this process in a batch of `batch` samples.

        Raises:
            UserError: the batch cannot be divided into equal micro-batches.
        """
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        size, rest = divmod(batch, processes)
        if rest or size % self.accumulate:
            raise UserError(
                f"batch_size {batch} cannot be divided into {processes} processes x accumulate "
                f"{self.accumulate} equal parts: change one of them"
            )
        return slice(rank * size, (rank + 1) * size)

    def parts(self, batch: int) -> list[slice]:
        """The micro-batches of this process, slices of equal size.

        Raises:
            UserError: see `share`.
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
        """Add the gradients of the mean loss over the whole batch to `weights`; return that loss.

        Args:
            loss: mean loss of a micro-batch, a scalar.
            parts: the micro-batches, from `parts`.
        """
        total = torch.zeros((), device=self.device)
        for part in parts:
            with self.accelerator.autocast():
                value = loss(part) / len(parts)
            self.accelerator.backward(value)
            total = total + value.detach()
        return self.average(total, weights) if self.accelerator.num_processes > 1 else total

    def may_skip(self) -> bool:
        """Whether fp16 loss scaling may cause a gradient overflow, which skips the step.

        Each overflow halves the scale; below 1, loss scaling cannot cause the overflow.
        """
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.get_scale() >= 1

    def reset_peak_memory(self) -> None:
        """Reset the peak that `peak_memory_mb` returns."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory_mb(self) -> float | None:
        """Peak GPU memory of tensors, MiB; None on a CPU."""
        if self.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)

    def average(
        self, loss: Float[Tensor, ""], weights: Sequence[nn.Parameter]
    ) -> Float[Tensor, ""]:
        """Average the gradients over the processes in place; return the mean loss."""
        with_gradient = [weight for weight in weights if weight.grad is not None]
        gradients = self.accelerator.reduce([weight.grad for weight in with_gradient], "mean")
        for weight, gradient in zip(with_gradient, gradients, strict=True):
            weight.grad = gradient
        mean: Tensor = self.accelerator.reduce(loss, "mean")
        return mean
