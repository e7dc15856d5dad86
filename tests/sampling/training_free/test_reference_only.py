"""Reference only: its attention by hand, no effect at weight 0, and images that come nearer."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from toy_backbone import SAMPLE, Toy

from adapterbench.core.config import SampleParams
from adapterbench.sampling.items import noise
from adapterbench.sampling.methods import training_free_method
from adapterbench.sampling.sampler import Sampler
from adapterbench.sampling.training_free.reference_only import Reference, SharedAttention


def sampler(toy: Toy, weight: float | None, **changes: Any) -> Sampler:
    """Three items, one image each; None: text only."""
    values = {**SAMPLE.model_dump(), "items": 3, "steps": 2, "batch_size": 3, **changes}
    made = Sampler(SampleParams(**values), toy.encoded, toy.backbone, None)
    if weight is not None:
        method = training_free_method("reference_only", {"weight": weight})
        made.generate = method.build(method.params, made)
    return made


def images(made: Sampler, with_text: bool = True) -> np.ndarray:
    return np.stack([np.asarray(i, dtype=int) for i in made.make(made.image_ids(), with_text)])


@pytest.mark.parametrize(("guidance", "with_text"), [(1.0, True), (3.0, False)])
def test_weight_0_is_the_base_model(toy: Toy, guidance: float, with_text: bool) -> None:
    plain, ours = (sampler(toy, w, guidance_scale=guidance) for w in (None, 0))
    assert np.abs(images(plain, with_text) - images(ours, with_text)).max() <= 1
    seen = sampler(toy, 1, guidance_scale=guidance)
    assert np.abs(images(plain, with_text) - images(seen, with_text)).max() > 1


@torch.no_grad()
@pytest.mark.parametrize(("guidance", "weight"), [(1.0, 0.5), (3.0, 1.0)])
def test_a_prediction_by_hand(toy: Toy, weight: float, guidance: float) -> None:
    """Softmax over the own and the noised reference's positions, written out for each layer.

    The unconditional half of guidance is the bare UNet's.
    """
    ours, bare = sampler(toy, weight, guidance_scale=guidance), sampler(toy, None)
    halves, image_ids = 2 if guidance > 1 else 1, ours.image_ids()
    predictions: list[tuple[torch.Tensor, torch.Tensor]] = []
    reference = None
    for processor in ours.unet.attn_processors.values():
        if isinstance(processor, SharedAttention):
            reference = processor.reference
    assert isinstance(reference, Reference)

    def remember(_: Any, args: Any, out: Any) -> None:
        if not reference.is_reading:
            predictions.append((args[0], out[0]))

    ours.unet.register_forward_hook(remember)
    texts = ours.captions(image_ids)
    ours.draw(image_ids, texts)
    latents = torch.stack([noise(p.key, p.k, 0, ours.shape) for p in image_ids])
    z, found = predictions[0]
    assert torch.equal(z, torch.cat([latents] * halves))

    t = ours.pipeline.scheduler.timesteps[0]
    noisy = ours.pipeline.scheduler.add_noise(ours.references(image_ids), latents, t.expand(3))
    kept: dict[int, torch.Tensor] = {}
    layers = [m for m in bare.unet.modules() if isinstance(m, Attention)]
    layers = [layer for layer in layers if not layer.is_cross_attention]
    assert len(layers) > 3

    def keep(attn: Attention, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        kept[id(attn)] = hidden
        return AttnProcessor2_0()(attn, hidden)

    def attend(attn: Attention, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        def heads(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        q, own_k, own_v = (heads(f(hidden)) for f in (attn.to_q, attn.to_k, attn.to_v))
        ref_k, ref_v = (heads(f(kept[id(attn)])) for f in (attn.to_k, attn.to_v))
        size = q.shape[-1] ** -0.5
        own = torch.exp(q @ own_k.transpose(2, 3) * size)
        other = weight * torch.exp(q @ ref_k.transpose(2, 3) * size)
        total = own.sum(-1, keepdim=True) + other.sum(-1, keepdim=True)
        mixed = (own @ own_v + other @ ref_v) / total
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))

    for processor, sample in ((keep, noisy), (attend, latents)):
        for layer in layers:
            layer.set_processor(processor)  # type: ignore[arg-type]
        expected = bare.unet(sample, t, texts.embeds).sample
    torch.testing.assert_close(found[-3:], expected, atol=1e-5, rtol=1e-4)
    if halves == 2:
        for layer in layers:
            layer.set_processor(AttnProcessor2_0())  # type: ignore[arg-type]
        plain = bare.unet(latents, t, bare.empty.embeds.expand(3, -1, -1)).sample
        torch.testing.assert_close(found[:3], plain, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_features_come_nearer_to_the_reference(toy: Toy) -> None:
    """The more weight, the nearer is a layer's output to what the reference alone gives."""
    unet = sampler(toy, None).unet
    attentions = [module for module in unet.modules() if isinstance(module, Attention)]
    layer = next(attn for attn in attentions if not attn.is_cross_attention)
    generator = torch.Generator().manual_seed(0)
    own, other = torch.randn(2, 2, 9, layer.query_dim, generator=generator)
    alone = AttnProcessor2_0()(layer, own, other)
    distances = []
    for weight in (0.0, 0.3, 1.0, 10.0):
        reference = Reference(unet, None, weight)
        reference.latents = torch.zeros(2)
        shared = SharedAttention(reference, AttnProcessor2_0())
        shared.features = other
        distances.append(float((shared(layer, own) - alone).norm()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.2 * distances[0]


def test_the_batch_size_changes_nothing(toy: Toy) -> None:
    made = sampler(toy, 1)
    one_by_one = [np.asarray(made.make([p], True)[0], dtype=int) for p in made.image_ids()]
    assert np.abs(images(made) - np.stack(one_by_one)).max() <= 1
