"""Uni-ControlNet's global control: image tokens stand behind the text tokens (Zhao et al. 2023)."""

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional as F

from adapterbench.adapters.core.branch import BaseProcessor, Branch
from adapterbench.core.config import Section


class Params(Section):
    """Fields of a variant with `attention: append`: none."""


def build(_params: Params, _attn: Attention) -> Branch:
    """The branch of one layer."""
    return Append()


class Append(Branch):
    """`y_ext = [y_t1 .. y_tL, lambda y_g1 .. lambda y_gM]`, `K = y_ext W_K`, `V = y_ext W_V`.

    It trains nothing: the frozen layer attends to text and image tokens alike. By this equation
    lambda = 0 is *not* the base model: zero tokens give zero keys and values, and a zero key
    still takes its share of the softmax.
    """

    def forward(
        self,
        attn: Attention,
        base: BaseProcessor,
        hidden_states: Tensor,
        text: Tensor,
        tokens: Tensor,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """See `Branch.forward`."""
        extended = torch.cat([text, self.scale * tokens.to(text.dtype)], dim=1)
        if attention_mask is not None:  # image tokens are never masked
            attention_mask = F.pad(attention_mask, (0, tokens.shape[1]))
        return base(attn, hidden_states, extended, attention_mask)
