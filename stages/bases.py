"""Stage `bases`: fetch the further base models on which the adapters are used."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.backbone.bases import fetch_base
from adapterbench.core.config import load_bases
from adapterbench.core.files import publish
from adapterbench.runs.record import stage_record


def main(
    backbone: Annotated[Path, Option(help="Folder of stage backbone, which LoRAs go over.")],
    out: Annotated[Path, Option(help="Folder of <base>, diffusers layout.")],
) -> None:
    """Fetch the further base models, at their pinned revisions."""
    bases = load_bases()
    with stage_record("bases", params={"bases": bases}, inputs=[backbone]), publish(out) as folder:
        folder.mkdir()
        for name, params in bases.items():
            fetch_base(name, params, backbone, folder / name)


if __name__ == "__main__":
    run(main)
