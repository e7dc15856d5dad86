"""Uni-ControlNet's global control: image tokens after the text tokens (Zhao et al. 2023)."""

import math

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from adapterbench.adapters.core.branch import Branch, Prompt, added_scores
from adapterbench.core.config import Section


class Params(Section):
    """Fields of a variant with `attention: append`: none."""


def build(_params: Params, _attn: Attention) -> Branch:
    """The branch of a layer."""
    return Append()


class Append(Branch):
    """`y_ext = [y_t1 .. y_tL, lambda y_g1 .. lambda y_gM]`, `K = y_ext W_K`, `V = y_ext W_V`.

    It has no parameters: the frozen layer attends to text and image tokens alike. By this equation
    lambda = 0 is *not* the base model: zero tokens give zero keys and values, and a zero key
    still has a softmax weight. Masks, prompt weights and the weight of a step scale that weight:
    where one is 0, the layer attends to the text only.
    """

    def extend(
        self,
        text: Float[Tensor, "batch text dim"],
        attention_mask: Float[Tensor, "batch rows text"] | None,
        prompt: Prompt,
        positions: int,
    ) -> tuple[Float[Tensor, "batch extended dim"], Float[Tensor, "batch queries extended"] | None]:
        """See `Branch.extend`."""
        if self.step_weight == 0:
            return text, attention_mask
        tokens = prompt.tokens.to(text.dtype)
        extended = torch.cat([text, self.scaled(tokens)], dim=1)
        weights = self.weights(tokens, prompt.regions(positions))
        if weights is not None:
            scores = added_scores(weights, tokens.shape[1])
            attention_mask = joined(attention_mask, text, scores)
        elif attention_mask is not None:  # image tokens are never masked
            attention_mask = F.pad(attention_mask, (0, tokens.shape[1]))
        return extended, attention_mask

    def scaled(
        self, tokens: Float[Tensor, "batch tokens dim"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """The tokens times lambda, or times the lambda of their prompt."""
        if not isinstance(self.scale, list):
            return self.scale * tokens
        scale = tokens.new_tensor(self.scale)
        return scale.repeat_interleave(tokens.shape[1] // len(scale))[:, None] * tokens

    def weights(
        self,
        tokens: Float[Tensor, "batch tokens dim"],
        regions: Float[Tensor, "prompts positions"] | None,
    ) -> Float[Tensor, "#prompts #positions"] | None:
        """The softmax weights of n prompts `(n, N or 1)`, or None where all are 1."""
        factors = [] if regions is None else [regions.clamp(0, 1).to(tokens.dtype)]
        if self.prompt_weights is not None:
            factors.append(tokens.new_tensor(self.prompt_weights)[:, None])
        if self.step_weight != 1:
            factors.append(tokens.new_full((1, 1), self.step_weight))
        return math.prod(factors[1:], start=factors[0]) if factors else None


def joined(
    attention_mask: Float[Tensor, "batch rows text"] | None,
    text: Float[Tensor, "batch text dim"],
    scores: Float[Tensor, "positions tokens"],
) -> Float[Tensor, "batch queries keys"]:
    """The mask of text tokens `(B, 1 or N, L)`, and scores `(1 or N, M)`: `(B, 1 or N, L + M)`."""
    if attention_mask is None:
        attention_mask = text.new_zeros(1, 1, text.shape[1])
    rows = max(attention_mask.shape[1], len(scores))
    parts = [part.expand(len(text), rows, -1) for part in (attention_mask, scores[None])]
    return torch.cat(parts, dim=-1)
