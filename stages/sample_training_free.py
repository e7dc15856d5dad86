"""Stage `sample_training_free`: images of a method that uses the reference without an adapter."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Argument, Option

from adapterbench.core.config import SampleParams, load_params, load_training_free
from adapterbench.formats.generated import PROTOCOLS, samples_tar
from adapterbench.runs.record import stage_record
from adapterbench.sampling.methods import training_free_method
from adapterbench.sampling.sampler import sample


def main(
    name: Annotated[str, Argument(help="A row of `training_free:` in params.yaml.")],
    encoded: Annotated[Path, Option(help="Folder of stage encode.")],
    backbone: Annotated[Path, Option(help="Folder of stage backbone.")],
    out: Annotated[Path, Option(help="Folder for <protocol>.tar, named after the method.")],
) -> None:
    """Generate the scored images of a training-free method; a killed run resumes."""
    params, fields = load_params(SampleParams, "sample"), load_training_free()[name]
    method, protocols = training_free_method(name, fields), list(PROTOCOLS)
    facts = {"sample": params, "training_free": fields}
    with stage_record("sample", variant=name, params=facts, inputs=[encoded, backbone]) as record:
        inputs = encoded, backbone, None, protocols, out
        record.set(images=sample(params, *inputs, training_free=method))
        record.images("generated", [samples_tar(out, protocol) for protocol in protocols])


if __name__ == "__main__":
    run(main)
