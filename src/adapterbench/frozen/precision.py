"""Compute precision: names of `mixed_precision` as torch's types, and the autocast context."""

from contextlib import AbstractContextManager, nullcontext

import torch

from adapterbench.core.config import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "no": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """The context in which networks with fp32 weights compute in a precision."""
    if precision == "no":
        return nullcontext()
    context: AbstractContextManager[None] = torch.autocast(device.type, DTYPES[precision])
    return context
