"""From settings to a plan: the real model and adapters, built without weights."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapterbench.adapters.core.build import build_adapter
from adapterbench.cli.architecture import Architecture, Shapes, shapes
from adapterbench.cli.costs import Device, Sampling, Training, sampling, training
from adapterbench.cli.disk import TEXT_BYTES, Corpus, count_shards, encoded_bytes, plain
from adapterbench.cli.flops import build_unet, decoder_flops, text_flops, unet_passes
from adapterbench.cli.paths import SHARDS
from adapterbench.cli.settings import variants
from adapterbench.core.config import EncodeParams, SampleParams, load_params, load_train
from adapterbench.core.files import MANIFEST


@dataclass(frozen=True)
class Plan:
    """What a run will take."""

    backbone: str
    shapes: Shapes
    training: dict[str, Training]
    """By variant."""
    sampling: Sampling
    corpus: Corpus | None
    """None where nobody has said or counted how much there is to encode."""
    texts: str
    """`encode.texts`."""
    text_flops: int
    """Operations of the text encoder, a caption; a step has them where texts are live."""

    @property
    def flops(self) -> int:
        """Operations of all trainings and all images."""
        return sum(each.flops for each in self.training.values()) + self.sampling.flops

    def encoded_bytes(self, texts: str) -> dict[str, int] | None:
        """Bytes of each kind of tensor, were `encode.texts` so."""
        return encoded_bytes(self.corpus, self.shapes, texts) if self.corpus else None

    def total_bytes(self, texts: str) -> int | None:
        """Bytes of all encoded shards, were `encode.texts` so."""
        sizes = self.encoded_bytes(texts)
        return sum(sizes.values()) if sizes else None

    def facts(self, device: Device | None) -> dict[str, Any]:
        """Plain numbers, with hours where there is a device."""

        def timed(part: Training | Sampling) -> dict[str, Any]:
            return asdict(part) | {"hours": device.hours(part.flops) if device else None}

        return {
            "backbone": self.backbone,
            "shapes": asdict(self.shapes),
            "device": asdict(device) if device else None,
            "training": {name: timed(each) for name, each in self.training.items()},
            "sampling": timed(self.sampling),
            "samples": self.corpus.samples if self.corpus else None,
            "encoded_bytes": self.encoded_bytes(self.texts),
            "texts": {
                "chosen": self.texts,
                "bytes_of_all": {name: self.total_bytes(name) for name in TEXT_BYTES},
                "flops_per_caption": self.text_flops,
            },
            "flops": self.flops,
            "hours": device.hours(self.flops) if device else None,
        }


def estimate(architecture: Architecture, params: Path, samples: int | None) -> Plan:
    """Count everything for the settings of a params file.

    Args:
        architecture: of the backbone.
        params: a params file.
        samples: images to encode; None counts what is prepared.

    Raises:
        UserError: a bad or missing section, row or configuration.
    """
    one = shapes(architecture, params)
    texts = load_params(EncodeParams, "encode", params).texts
    trainings, predictions = {}, []
    with architecture.builds():
        unet = build_unet(architecture.config("unet"))
        caption = text_flops(architecture.config("text_encoder"), one)
        in_step = caption if texts == "live" else 0
        for name, variant in variants(params).items():
            adapter = build_adapter(variant, unet, one.image)
            adapter.attach(unet)
            passes = unet_passes(unet, adapter, one)
            adapter.detach(unet)
            trainings[name] = training(adapter.count, passes, in_step, load_train(name, params))
            predictions.append(passes.forward)
        bare = unet_passes(unet, None, one)
        decoder = decoder_flops(architecture.config("vae"), one)
    sampled = load_params(SampleParams, "sample", params)
    return Plan(
        backbone=architecture.name,
        shapes=one,
        training=trainings,
        sampling=sampling(predictions, bare.forward, decoder, sampled),
        corpus=corpus(samples),
        texts=texts,
        text_flops=caption,
    )


def corpus(samples: int | None) -> Corpus | None:
    """What there is to encode: as told, or else as prepared, if it is."""
    if samples is not None:
        return plain(samples)
    return count_shards(SHARDS) if (SHARDS / MANIFEST).is_file() else None
