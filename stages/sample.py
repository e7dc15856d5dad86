"""Stage `sample`: generate the images that are scored, with or without an adapter."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.adapters.core.storage import WEIGHTS
from adapterbench.adapters.core.variant import load_variant
from adapterbench.core.config import SampleParams, load_params
from adapterbench.formats.generated import samples_tar
from adapterbench.runs.record import stage_record
from adapterbench.sampling.sampler import sample


def main(
    encoded: Annotated[Path, Option(help="Folder of stage encode.")],
    backbone: Annotated[Path, Option(help="Folder of stage backbone.")],
    out: Annotated[Path, Option(help="Folder for <protocol>.tar, named after the method.")],
    protocol: Annotated[list[str], Option(help="image or image_text; may be given twice.")],
    adapter: Annotated[Path | None, Option(help="Folder of stage train; none: baseline.")] = None,
    shards: Annotated[Path | None, Option(help="Stage prepare's, for outside adapters.")] = None,
) -> None:
    """Generate the images that are scored, with or without an adapter; a killed run resumes."""
    params = load_params(SampleParams, "sample")
    inputs = [encoded, backbone]
    variant = load_variant(out.name) if adapter else None
    facts = {"sample": params, "variant": variant}
    with stage_record("sample", variant=out.name, params=facts, inputs=inputs) as record:
        made = sample(params, encoded, backbone, adapter, protocol, out, shards, variant)
        record.set(images=made)
        if adapter:
            record.adapter(adapter / WEIGHTS, made=False)
        record.images("generated", [samples_tar(out, name) for name in protocol])


if __name__ == "__main__":
    run(main)
