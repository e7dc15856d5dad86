"""Stage `prepare`: check, split and list or pack the images, with a manifest."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.core.config import DataParams, load_params
from adapterbench.data.prepare import prepare
from adapterbench.runs.record import stage_record


def main(
    raw: Annotated[Path, Option(help="Folder of stage fetch.")],
    out: Annotated[Path, Option(help="Folder for the shards and manifest.json.")],
) -> None:
    """Check, split and list or pack the images, with a manifest."""
    params = load_params(DataParams, "data")
    with stage_record("prepare", params={"data": params}, inputs=[raw]) as record:
        manifest = prepare(params, raw, out)
        record.set(dropped=sum(manifest["dropped"].values()))
        record.set(**{name: split["samples"] for name, split in manifest["splits"].items()})
        record.artifact(out / "manifest.json")


if __name__ == "__main__":
    run(main)
