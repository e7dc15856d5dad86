"""What scores: a frozen network that turns images, and texts where it reads them, into vectors."""

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
from adapterbench.runs.processes import processes, share


@dataclass(frozen=True)
class Folders:
    """Where the networks lie that stages bring."""

    backbone: Path
    """Of stage `backbone`, which may bring CLIPs of its own."""
    evaluator: Path
    """Of stage `neutral_evaluator`."""


@dataclass(frozen=True)
class Evaluator:
    """A frozen network and how much it takes at a time."""

    image_embeds: Callable[[list[Image.Image]], Tensor]
    """Images -> embeddings `(B, D)` on the CPU, not normalised."""
    text_embeds: Callable[[list[str]], Tensor] | None
    """Texts -> embeddings `(B, D)` of the same space; None: it reads images alone."""
    batch_size: int

    def images(self, images: Sequence[Image.Image]) -> Float[Tensor, "images dim"]:
        """Unit embeddings `(N, D)`."""
        return self.embed(self.image_embeds, images)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Unit embeddings `(N, D)`."""
        if self.text_embeds is None:
            raise TypeError("this evaluator reads no texts")
        return self.embed(self.text_embeds, texts)

    def embed(
        self, network: Callable[[list[Any]], Tensor], inputs: Sequence[Any]
    ) -> Float[Tensor, "inputs dim"]:
        """Unit embeddings `(N, D)` by `network`; the stage's processes share the batches."""
        batches = list(enumerate(chunked(inputs, self.batch_size)))
        mine = [(number, network(batch)) for number, batch in share(batches, processes())]
        parts = dict(gather_object(mine))
        return F.normalize(torch.cat([parts[number] for number, _ in batches]), dim=-1)


def load_evaluator(params: EvaluatorParams, folders: Folders, name: str) -> Evaluator:
    """Load an evaluator; `name` is how the user knows its parameters.

    Raises:
        UserError: there is no such kind, a field is bad, or the weights are missing or do not fit.
    """
    try:
        module = load("adapterbench.scoring.evaluators", params.kind)
    except UserError as error:
        raise UserError(f"params.yaml: {name}.kind: {error}") from error
    own = parse(module.Params, params.model_extra, name)
    evaluator: Evaluator = module.load(own, folders)
    return evaluator
