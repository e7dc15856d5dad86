"""The adapter: a projection and a branch for every cross-attention layer of a frozen UNet."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from adapterbench.adapters.core.branch import Branch
from adapterbench.adapters.core.channel import ImageChannel, channels
from adapterbench.core.errors import UserError


class Adapter(nn.Module):
    """Adds image prompts to a frozen UNet; its parameters are exactly the trained ones.

    With it attached, the UNet needs `added_cond_kwargs={"image_embeds": [c_g]}` in each call, with
    `c_g (B, n, c)`, the embeddings of n image prompts (or `(B, n, S, c)`, the features of their S
    patches, if `reads_patches`). A pipeline needs `ip_adapter_image_embeds=[c_g]`, under guidance
    `(2 B, n, ..)` with the unconditional half first: zeros, or the patch features of a zero image.
    An adapter is attached to one UNet at a time; a UNet may have several (`attach_together`), with
    one list entry for each. The caller must freeze the UNet.
    """

    def __init__(
        self,
        projection: nn.Module,
        branches: Mapping[str, Branch],
        embed_dim: int,
        reads_patches: bool = False,
    ) -> None:
        """Combine the parts.

        Args:
            projection: `(B, embed_dim)`, or `(B, S, embed_dim)` where it reads patches, to image
                tokens `(B, K, D)`.
            branches: the branch of each cross-attention layer, by the layer's path in the UNet.
            embed_dim: width c of an image embedding, or of a patch.
            reads_patches: whether it reads patch features of the image encoder.
        """
        super().__init__()
        self.projection = projection
        # the name of a child module may not contain a dot
        self.branches = nn.ModuleDict({p.replace(".", "/"): b for p, b in branches.items()})
        self.embed_dim = embed_dim
        self.reads_patches = reads_patches
        self.weight_at: Callable[[Tensor | float], float] | None = None
        """Factor of lambda at a timestep of sampling; None: 1."""

    def forward(self, image_embeds: Float[Tensor, "..."]) -> Float[Tensor, "batch tokens dim"]:
        """Image tokens `(B, n K, D)` of n image prompts, in the adapter's dtype.

        Args:
            image_embeds: `(B, n, c)`, or `(B, n, S, c)` where it reads patches.

        Raises:
            UserError: the embeddings have another shape.
        """
        axes = ["batch", "prompts", *(["patches"] if self.reads_patches else [])]
        if image_embeds.ndim != len(axes) + 1 or image_embeds.shape[-1] != self.embed_dim:
            raise UserError(
                f"image embeddings have shape {tuple(image_embeds.shape)}, this adapter takes "
                f"({', '.join(axes)}, {self.embed_dim}): use the image encoder it was trained with"
            )
        dtype = next(self.projection.parameters()).dtype
        tokens = self.projection(image_embeds.to(dtype).flatten(0, 1))
        return tokens.unflatten(0, image_embeds.shape[:2]).flatten(1, 2)

    @property
    def layers(self) -> dict[str, Branch]:
        """The branches by the path of their layer in the UNet."""
        branches = cast(dict[str, Branch], self.branches)
        return {name.replace("/", "."): branch for name, branch in branches.items()}

    @property
    def scale(self) -> dict[str, float | list[float]]:
        """lambda by the path of the layer.

        Set it to a number for all layers, or to a mapping from paths (layers left out get 0). With
        masks a list stands for a number: one for each image prompt.
        """
        return {path: branch.scale for path, branch in self.layers.items()}

    @scale.setter
    def scale(self, value: "Scale | Mapping[str, Scale]") -> None:
        by_path = value if isinstance(value, Mapping) else dict.fromkeys(self.layers, value)
        if unknown := sorted(map(str, by_path.keys() - self.layers.keys())):
            raise UserError(f"no layer {unknown[0]!r} to scale (layers: {', '.join(self.layers)})")
        hint = ", or a mapping from layers to such"
        scales = {path: numbers(by_path.get(path, 0.0), "scale", hint) for path in self.layers}
        for path, branch in self.layers.items():
            branch.scale = scales[path]

    @property
    def prompt_weights(self) -> list[float] | None:
        """Weights of the image prompts in a shared attention; None: 1 each.

        Weights 2 and 1 equal giving the first image prompt twice.
        """
        return next(iter(self.layers.values())).prompt_weights

    @prompt_weights.setter
    def prompt_weights(self, value: Sequence[object] | None) -> None:
        weights = None if value is None else [finite(share, "weights") for share in value]
        if weights is not None and (min(weights, default=0) < 0 or not sum(weights) > 0):
            raise UserError(
                f"weights = {value!r}: give each image a number, none below 0, one above"
            )
        for branch in self.layers.values():
            branch.prompt_weights = weights

    def prepare(self, timestep: Tensor | float, device: torch.device) -> None:
        """Set the weight of the step and move to `device`; called before each call of the UNet.

        Offloading moves only the UNet's own weights.
        """
        if next(self.parameters()).device != device:
            self.to(device)
        weight = self.weight_at(timestep) if self.weight_at else 1.0
        for branch in self.layers.values():
            branch.step_weight = weight

    def check_images(self, images: int, masked: bool) -> None:
        """Check that the number of image prompts fits lambda and `prompt_weights`.

        Raises:
            UserError: a list does not have one entry per image prompt.
        """
        if masked and self.prompt_weights is not None:
            raise UserError(
                "weights apply to images that share an attention, and with masks each has its "
                "own: omit weights, and give scale a list"
            )
        if self.prompt_weights is not None and len(self.prompt_weights) != images:
            raise UserError(
                f"{len(self.prompt_weights)} weights for {images} image(s): give one for each"
            )
        for scale in self.scale.values():
            if isinstance(scale, list) and not (masked and len(scale) == images):
                raise UserError(
                    f"scale = {scale} for {images} image(s){'' if masked else ' without masks'}: "
                    "give a number for all, or masks and a number for each image"
                )

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters for the optimiser, always in the same order."""
        return list(self.parameters())

    @property
    def count(self) -> int:
        """Number of trainable scalars."""
        return sum(parameter.numel() for parameter in self.parameters())

    def attach(self, unet: UNet2DConditionModel) -> None:
        """Attach the adapter to `unet`, until `detach`.

        Raises:
            UserError: see `attach_together`.
        """
        attach_together([self], unet)

    def keep_weights(self) -> None:
        """Copy the UNet's weights that the branches use, until the adapter is attached again.

        So what merges into those (`fuse_lora` of a pipeline) does not reach the image prompt. LoRA
        branches need the memory of the four weights of each cross-attention layer, others none.
        """
        for branch in self.layers.values():
            branch.keep_weights()

    def detach(self, unet: UNet2DConditionModel) -> None:
        """Give `unet` back as it was before `attach`, to the last bit.

        Adapters that were attached together with it are detached too.

        Raises:
            UserError: this adapter is not attached to `unet`.
        """
        attached = [channel for channel in channels(unet) if self in channel.adapters]
        if not attached:
            raise UserError("the adapter is not attached to this UNet: attach it first")
        attached[0].remove()

    def is_attached(self, unet: UNet2DConditionModel) -> bool:
        """Whether the adapter is attached to `unet`."""
        channel = unet.encoder_hid_proj
        return isinstance(channel, ImageChannel) and self in channel.adapters


def attach_together(adapters: Sequence[Adapter], unet: UNet2DConditionModel) -> None:
    """Attach several adapters to `unet`, until one of them is detached.

    Raises:
        UserError: the UNet already has an `encoder_hid_proj` (an adapter, or a text
            projection), or its cross-attention layers are not those of the adapters.
    """
    for channel in channels(unet):
        if not channel.is_installed:  # `unload_ip_adapter` removes it incompletely
            channel.remove()
    if unet.encoder_hid_proj is not None:
        config: Any = unet.config  # an attribute: see `ImageChannel.install`
        kind = config.encoder_hid_dim_type
        raise UserError(f"the UNet already has an adapter or a projection ({kind}): detach it")
    attentions = cross_attention_layers(unet)
    for adapter in adapters:
        if attentions.keys() != adapter.layers.keys():
            differ = sorted(attentions.keys() ^ adapter.layers.keys())
            raise UserError(
                f"the adapter has {len(adapter.layers)} cross-attention layers, the UNet "
                f"{len(attentions)} ({differ[0]} is in one only): use the backbone's own adapter"
            )
    layers = [
        (attn, [adapter.layers[path] for adapter in adapters]) for path, attn in attentions.items()
    ]
    for attn, branches in layers:
        for branch in branches:
            branch.bind(attn)
    ImageChannel(adapters, unet).install(layers)


def cross_attention_layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """The layers that attend to the prompt, by path, in the order of the UNet's modules."""
    return {
        path: module
        for path, module in unet.named_modules()
        if isinstance(module, Attention) and module.is_cross_attention
    }


Scale = float | Sequence[float]
"""lambda of all image prompts, or a list with one each."""


def numbers(value: object, name: str, hint: str = "") -> float | list[float]:
    """The value of an argument as a number, or a list of them.

    Raises:
        UserError: see `finite`.
    """
    if isinstance(value, list | tuple) and value:
        return [finite(number, name, hint) for number in value]
    return finite(value, name, hint)


def finite(value: object, name: str, hint: str = "") -> float:
    """The value of an argument as a number.

    Raises:
        UserError: it is not a finite number; the message ends with `hint`.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{name} = {value!r}: give a finite number{hint}")
    return number
