"""Stage `figures`: the figures and the one-page report from the tables and the images."""

from pathlib import Path
from typing import Annotated

from remedies import run
from typer import Option

from adapterbench.core.config import IllustrateParams, load_params
from adapterbench.formats.shards import read_manifest
from adapterbench.report import layers, measured, page, pairs, provenance, table
from adapterbench.report.captioned_figures import Sources, draw
from adapterbench.runs.record import stage_record


def main(
    tables: Annotated[Path, Option(help="Folder of stage compare.")],
    samples: Annotated[Path, Option(help="Folder of <method>/<protocol>.tar.")],
    illustrations: Annotated[Path, Option(help="Folder of <method>, of stage illustrate.")],
    shards: Annotated[Path, Option(help="Folder of the shards and manifest.json.")],
    curves: Annotated[Path, Option(help="Folder of <variant>.csv, the logged losses.")],
    out: Annotated[Path, Option(help="Folder for the figures.")],
    report: Annotated[Path, Option(help="File for the page.")],
) -> None:
    """Draw the figures and write the report."""
    inputs = [tables, samples, illustrations, shards, curves]
    src = Sources(samples=samples, illustrations=illustrations, shards=shards, curves=curves)
    with stage_record("figures", params={}, inputs=inputs) as record:
        both, answers, by_layer = table.read(tables), pairs.read(tables), layers.read(illustrations)
        drawn = draw(both, answers, by_layer, load_params(IllustrateParams, "illustrate"), src, out)
        facts = measured.measured_on(*both["image"].size)
        files = [tables / n for n in (*table.FILES.values(), table.PAIRED_FILE, pairs.FILE)]
        origin, makers = provenance.provenance(files), read_manifest(shards).attribution
        page.write(report, page.render(both, answers, by_layer, facts, drawn, origin, makers))
        record.artifact(report)
        record.images("figures", [figure.path for figure in drawn])


if __name__ == "__main__":
    run(main)
