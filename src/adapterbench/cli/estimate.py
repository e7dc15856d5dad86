"""Estimate the costs of a run from its settings, with models built without weights."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adapterbench.adapters.core.build import build_adapter
from adapterbench.cli.architecture import (
    Architecture,
    Shapes,
    image_encoder,
    patch_shape,
    shapes,
)
from adapterbench.cli.costs import Device, Sampling, Training, sampling, training
from adapterbench.cli.disk import TEXT_BYTES, Corpus, count_shards, encoded_bytes, plain
from adapterbench.cli.flops import build_unet, decoder_flops, text_flops, unet_passes
from adapterbench.cli.paths import SHARDS
from adapterbench.cli.settings import variants
from adapterbench.core.config import (
    EncodeParams,
    SampleParams,
    load_params,
    load_train,
    load_training_free,
)
from adapterbench.core.files import MANIFEST
from adapterbench.frozen.texts import check_stored_as
from adapterbench.sampling.methods import training_free_method


@dataclass(frozen=True)
class Plan:
    """Estimated costs of a run."""

    backbone: str
    shapes: Shapes
    training: dict[str, Training]
    """By variant."""
    sampling: Sampling
    corpus: Corpus | None
    """None: the number of samples is unknown."""
    encode: EncodeParams
    text_flops: int
    """Operations of the text encoder per caption; part of every step if `encode.texts` is live."""

    @property
    def flops(self) -> int:
        """Operations of all trainings and of all sampled images."""
        return sum(training.flops for training in self.training.values()) + self.sampling.flops

    def encoded_bytes(self, texts: str) -> dict[str, int] | None:
        """Bytes of each kind of tensor if `encode.texts` were `texts`."""
        params = self.encode.model_copy(update={"texts": texts})
        return encoded_bytes(self.corpus, self.shapes, params) if self.corpus else None

    def total_bytes(self, texts: str) -> int | None:
        """Bytes of all encoded shards if `encode.texts` were `texts`."""
        sizes = self.encoded_bytes(texts)
        return sum(sizes.values()) if sizes else None

    @property
    def text_options(self) -> list[str]:
        """What `encode.texts` may be; two text encoders are always live."""
        return list(TEXT_BYTES) if self.shapes.text_encoders == 1 else ["live"]

    def facts(self, device: Device | None) -> dict[str, Any]:
        """All numbers, with hours if a device is given."""

        def timed(part: Training | Sampling) -> dict[str, Any]:
            return asdict(part) | {"hours": device.hours(part.flops) if device else None}

        return {
            "backbone": self.backbone,
            "shapes": asdict(self.shapes),
            "device": asdict(device) if device else None,
            "training": {name: timed(part) for name, part in self.training.items()},
            "sampling": timed(self.sampling),
            "samples": self.corpus.samples if self.corpus else None,
            "encoded_bytes": self.encoded_bytes(self.encode.texts),
            "texts": {
                "chosen": self.encode.texts,
                "bytes_of_all": {name: self.total_bytes(name) for name in self.text_options},
                "flops_per_caption": self.text_flops,
            },
            "flops": self.flops,
            "hours": device.hours(self.flops) if device else None,
        }


def estimate(architecture: Architecture, params: Path, samples: int | None) -> Plan:
    """Estimate the costs for the settings of a params file.

    Args:
        architecture: the backbone's configurations.
        params: a params file.
        samples: images to encode; None: count those of stage `prepare`.

    Raises:
        UserError: a section, row or configuration is missing or invalid.
    """
    sample_shapes = shapes(architecture, params)
    encode = load_params(EncodeParams, "encode", params)
    check_stored_as(encode.texts, sample_shapes.text_encoders)
    trainings, predictions = {}, []
    with architecture.building():
        unet = build_unet(architecture.config("unet"))
        encoders = {part: architecture.config(part) for part in architecture.text_encoders}
        caption = text_flops(encoders, sample_shapes)
        in_step = caption if encode.texts == "live" else 0
        for name, variant in variants(params).items():
            adapter = build_adapter(variant, unet, sample_shapes.image)
            adapter.attach(unet)
            clip = image_encoder(architecture, params, variant.image_encoder)
            own = replace(sample_shapes, patches=patch_shape(clip))
            passes = unet_passes(unet, adapter, own)
            adapter.detach(unet)
            trainings[name] = training(adapter.count, passes, in_step, load_train(name, params))
            predictions.append(passes.forward)
        bare = unet_passes(unet, None, sample_shapes)
        decoder = decoder_flops(architecture.config("vae"), sample_shapes)
    sampled = load_params(SampleParams, "sample", params)
    free = [training_free_method(*row) for row in load_training_free(params).items()]
    return Plan(
        backbone=architecture.name,
        shapes=sample_shapes,
        training=trainings,
        sampling=sampling(predictions, bare.forward, free, decoder, sampled),
        corpus=corpus(samples),
        encode=encode,
        text_flops=caption,
    )


def corpus(samples: int | None) -> Corpus | None:
    """The data to encode: `samples` images if given, else those of stage `prepare`, if any."""
    if samples is not None:
        return plain(samples)
    return count_shards(SHARDS) if (SHARDS / MANIFEST).is_file() else None
