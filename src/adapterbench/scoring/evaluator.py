"""Evaluators: frozen networks that embed images and, if they have a text encoder, texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from jaxtyping import Float
from more_itertools import chunked
from PIL import Image
from torch import Tensor

from adapterbench.core.config import EvaluatorParams, parse
from adapterbench.core.errors import UserError
from adapterbench.core.registry import load
from adapterbench.runs.processes import process_state, share


@dataclass(frozen=True)
class Folders:
    """Folders of the networks that stages fetch."""

    backbone: Path
    """Of stage `backbone`; may contain CLIPs."""
    evaluator: Path
    """Of stage `neutral_evaluator`."""


@dataclass(frozen=True)
class Evaluator:
    """A frozen network and its batch size."""

    image_embeds: Callable[[list[Image.Image]], Tensor]
    """Images -> embeddings `(B, D)` on the CPU, not normalised."""
    text_embeds: Callable[[list[str]], Tensor] | None
    """Texts -> embeddings `(B, D)` of the same space; None: images only."""
    batch_size: int

    def images(self, images: Sequence[Image.Image]) -> Float[Tensor, "images dim"]:
        """Unit embeddings `(N, D)` of images."""
        return self.embed(self.image_embeds, images)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Unit embeddings `(N, D)` of texts."""
        if self.text_embeds is None:
            raise TypeError("this evaluator has no text encoder")
        return self.embed(self.text_embeds, texts)

    def embed(
        self, network: Callable[[list[Any]], Tensor], inputs: Sequence[Any]
    ) -> Float[Tensor, "inputs dim"]:
        """Unit embeddings `(N, D)` by `network`; all processes share the batches."""
        batches = list(enumerate(chunked(inputs, self.batch_size)))
        mine = [(number, network(batch)) for number, batch in share(batches, process_state())]
        parts = dict(gather_object(mine))
        return F.normalize(torch.cat([parts[number] for number, _ in batches]), dim=-1)


def load_evaluator(params: EvaluatorParams, folders: Folders, name: str) -> Evaluator:
    """Load an evaluator.

    Args:
        name: path of its section in params.yaml, for messages.

    Raises:
        UserError: the kind is unknown, a field is invalid, or the weights are missing or do not
            fit.
    """
    try:
        module = load("adapterbench.scoring.evaluators", params.kind)
    except UserError as error:
        raise UserError(f"params.yaml: {name}.kind: {error}") from error
    options = parse(module.Params, params.model_extra, name)
    evaluator: Evaluator = module.load(options, folders)
    return evaluator
