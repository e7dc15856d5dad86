"""Hooks that connect an adapter to a diffusers UNet, through its own channel for image prompts.

`unet.encoder_hid_proj` gets the pipelines' `ip_adapter_image_embeds`, one entry for each adapter,
and answers with image tokens; the UNet hands `(text, [tokens, ..])` to the processor of each
cross-attention layer. So every Stable Diffusion pipeline (text to image, image to image,
inpainting, ControlNet) takes adapters.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, Self, cast

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, IPAdapterAttnProcessor2_0
from jaxtyping import Float
from torch import Tensor, nn

from adapterbench.adapters.core.branch import BaseProcessor, Branch, Prompt, run_layer
from adapterbench.adapters.core.masks import checked_masks
from adapterbench.core.errors import UserError

CHANNEL = "ip_image_proj"
"""diffusers' name for `encoder_hid_proj` taking image prompts."""
MASKS = "ip_adapter_masks"
"""diffusers' name in `cross_attention_kwargs` for where in the image the prompts count."""


class ImageChannel(nn.Module):
    """`encoder_hid_proj` of a UNet with one adapter or several.

    An adapter moves with the UNet (`pipe.to("cuda", torch.float16)`) but is no child of it. So
    the UNet's parameters and state stay the base model's own: freezing or saving the UNet leaves
    the adapter alone, and so do the pipelines' LoRA calls, which take any LoRA layer that they
    find under the UNet for theirs (`set_adapters` would switch it off, `fuse_lora` would merge it
    into the frozen weight).
    """

    def __init__(self, adapters: Sequence[Any], unet: UNet2DConditionModel) -> None:
        super().__init__()
        self._ends = (tuple(adapters), unet)  # in a tuple, torch does not take them for children

    @property
    def adapters(self) -> tuple[Any, ...]:
        """Each `Adapter` behind the channel: what makes image tokens of embeddings."""
        return self._ends[0]

    @property
    def unet(self) -> UNet2DConditionModel:
        """The UNet before the channel."""
        return self._ends[1]

    @property
    def is_open(self) -> bool:
        """Whether the UNet still has it: `unload_ip_adapter` and `load_ip_adapter` take it away."""
        return self.unet.encoder_hid_proj is self

    def install(self, layers: Iterable[tuple[Attention, Sequence[Branch]]]) -> None:
        """Put the channel into the UNet, and the branches of all adapters into their layer."""
        self.unet.encoder_hid_proj = self
        # an attribute, as diffusers sets it: an entry would be saved, and no UNet loads with it
        self.unet.config.encoder_hid_dim_type = CHANNEL
        self.hook = self.unet.register_forward_pre_hook(self.check, with_kwargs=True)
        for attn, branches in layers:
            LayerHook(self, attn, branches).install()

    def remove(self) -> None:
        """Give the UNet back as it was, but for what others have put there since."""
        self.hook.remove()
        for hook in layer_hooks(self.unet):
            hook.remove()
        if self.unet.encoder_hid_proj in (self, None):
            del self.unet.encoder_hid_proj  # else None would stay behind as a child
            self.unet.encoder_hid_proj = None
            self.unet.config.encoder_hid_dim_type = None

    def forward(
        self, image_embeds: list[Float[Tensor, "batch _ ..."]]
    ) -> list[Float[Tensor, "batch _ dim"]]:
        """`[(B, n, c), ..]`, n image prompts of each adapter, to `[(B, n K, D), ..]`, tokens."""
        pairs = zip(self.adapters, image_embeds, strict=True)
        return [adapter(embeds) for adapter, embeds in pairs]

    def check(
        self, _unet: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Refuse a call of the UNet whose image prompts are not those of its adapters.

        Returns:
            The inputs with masks as the layers take them.

        Raises:
            UserError: what the call lacks, or has too much.
        """
        if not self.is_open:
            return None
        image_embeds = (inputs.get("added_cond_kwargs") or {}).get("image_embeds")
        if image_embeds is None:
            raise UserError(
                "the UNet has an adapter and got no image prompt: call the pipeline with "
                "**image_prompt(image), or image_prompt.detach() first"
            )
        if len(image_embeds) != len(self.adapters):
            raise UserError(
                f"the UNet has {len(self.adapters)} adapter(s) and got image prompts for "
                f"{len(image_embeds)}: give ip_adapter_image_embeds one entry for each"
            )
        sample, timestep, *_ = [*args, *(inputs[n] for n in ("sample", "timestep") if n in inputs)]
        kwargs = inputs.get("cross_attention_kwargs") or {}
        masks = checked_masks(kwargs.get(MASKS), image_embeds, sample)
        for adapter, embeds, mask in zip(self.adapters, image_embeds, masks, strict=True):
            adapter.check_images(embeds.shape[1], masked=mask is not None)
            adapter.prepare(timestep, embeds.device)
        if MASKS not in kwargs:
            return None
        return args, inputs | {"cross_attention_kwargs": kwargs | {MASKS: masks}}

    @property
    def image_projection_layers(self) -> NoReturn:
        """Where pipelines look for diffusers' own adapters, to encode `ip_adapter_image` for them.

        Raises:
            UserError: always.
        """
        raise UserError(
            "this adapter takes no ip_adapter_image: call the pipeline with **image_prompt(image)"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for adapter in self.adapters:
            adapter._apply(fn, recurse)
        return super()._apply(fn, recurse)


class LayerProcessor:
    """Attention processor of one cross-attention layer; `base` is the one it stands for."""

    def __init__(self, branches: Sequence[Branch], base: BaseProcessor) -> None:
        self.branches = branches
        self.base = base

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, " batch *features"],
        encoder_hidden_states: tuple[
            Float[Tensor, "batch text dim"], list[Float[Tensor, "batch _ dim"]]
        ]
        | Float[Tensor, "batch text dim"],
        attention_mask: Float[Tensor, "batch rows text"] | None = None,
        ip_adapter_masks: Sequence[Float[Tensor, "1 _ _ _"] | None] | None = None,
    ) -> Float[Tensor, " batch *features"]:
        """Split `(text (B, L, D), [tokens (B, M, D), ..])` for the branches (see `run_layer`)."""
        if isinstance(encoder_hidden_states, Tensor):  # the UNet has lost the channel
            return self.base(attn, hidden_states, encoder_hidden_states, attention_mask)
        text, tokens = encoder_hidden_states
        masks = ip_adapter_masks or [None] * len(tokens)
        prompts = [Prompt(*parts) for parts in zip(tokens, masks, strict=True)]
        branches = list(zip(self.branches, prompts, strict=True))
        return run_layer(attn, self.base, hidden_states, text, attention_mask, branches)


class SeenProcessor(IPAdapterAttnProcessor2_0):
    """What diffusers sees of a `LayerProcessor`: one of its own IP-Adapters'.

    So `unload_ip_adapter` takes it away, and `set_ip_adapter_scale`, which skips all processors
    but those, cannot pass it over in silence. Wherever it is put, it does what the other does.
    """

    def __init__(self, processor: LayerProcessor) -> None:
        nn.Module.__init__(self)
        self.processor = processor

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """diffusers' class itself, which some places of it ask for."""
        return IPAdapterAttnProcessor2_0

    @property
    def scale(self) -> NoReturn:
        """Where pipelines set lambda.

        Raises:
            UserError: always.
        """
        raise UserError(
            "set_ip_adapter_scale does not reach this adapter: give the scale to "
            "image_prompt(image, scale=...), or set image_prompt.adapter.scale"
        )

    def __call__(self, *inputs: Any, **more: Any) -> Tensor:
        """See `LayerProcessor`."""
        return self.processor(*inputs, **more)


class LayerHook:
    """Keeps branches in a cross-attention layer, whatever processor others give the layer.

    Attention slicing, fused projections, xFormers and the like set a layer's processor; what they
    set becomes the base of the `LayerProcessor`.
    """

    def __init__(self, channel: ImageChannel, attn: Attention, branches: Sequence[Branch]) -> None:
        self.channel, self.attn, self.branches = channel, attn, branches

    def install(self) -> None:
        """Take over the layer's processor, and what reads and sets it."""
        self.attn.set_processor, self.attn.get_processor = self.set, self.get
        self.set(self.attn.processor)

    def remove(self) -> None:
        """Leave the layer with the base alone."""
        base = self.own.base
        del self.attn.set_processor, self.attn.get_processor
        put(self.attn, base)

    @property
    def own(self) -> LayerProcessor:
        """The layer's processor while the hook is in place."""
        return cast(LayerProcessor, self.attn.processor)

    def set(self, processor: BaseProcessor) -> None:
        """Stand for `processor`; without the channel, make way for it."""
        if not self.channel.is_open:
            self.channel.hook.remove()
            self.remove()
            put(self.attn, processor)
            return
        if isinstance(processor, SeenProcessor):
            processor = processor.processor.base
        put(self.attn, LayerProcessor(self.branches, processor))

    def get(self) -> SeenProcessor:
        """What others get, and may `set` again later to have the base of this moment back."""
        return SeenProcessor(self.own)


def put(attn: Attention, processor: BaseProcessor) -> None:
    """Give a layer its processor; diffusers takes any and names one class of many."""
    Attention.set_processor(attn, cast(AttnProcessor, processor))


def layer_hooks(unet: UNet2DConditionModel) -> list[LayerHook]:
    """Those that are in place."""
    attentions = [module for module in unet.modules() if isinstance(module, Attention)]
    setters = [getattr(attn.set_processor, "__self__", None) for attn in attentions]
    return [owner for owner in setters if isinstance(owner, LayerHook)]


def channels(unet: UNet2DConditionModel) -> set[ImageChannel]:
    """Those that have hooks in its layers."""
    return {hook.channel for hook in layer_hooks(unet)}
