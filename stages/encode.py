"""Stage `encode`: run the frozen encoders once over every shard."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.core.config import EncodeParams, load_params
from adapterbench.encoding.shards import encode, skipped
from adapterbench.runs.record import stage_record


def main(
    shards: Annotated[Path, Option(help="Folder of stage prepare.")],
    backbone: Annotated[Path, Option(help="Folder of stage backbone.")],
    out: Annotated[Path, Option(help="Folder for the encoded shards.")],
) -> None:
    """Run the frozen encoders once over every shard."""
    params = load_params(EncodeParams, "encode")
    inputs = [shards, backbone]
    with stage_record("encode", params={"encode": params}, inputs=inputs) as record:
        manifest = encode(params, shards, backbone, out)
        record.set(skipped=sum(len(shard["skipped"]) for shard in skipped(manifest["splits"])))


if __name__ == "__main__":
    run(main)
