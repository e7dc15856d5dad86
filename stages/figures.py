"""Stage `figures`: the figures and the one-page report from the tables and the pictures."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.files import MANIFEST, read_json
from adapterbench.record import stage_record
from adapterbench.report import page, table
from adapterbench.report.measured import measured_on
from adapterbench.report.plates import Sources, draw
from adapterbench.report.provenance import provenance
from adapterbench.stage import run


def main(
    tables: Annotated[Path, Option(help="Folder of stage compare.")],
    samples: Annotated[Path, Option(help="Folder of <method>/<protocol>.tar.")],
    shards: Annotated[Path, Option(help="Folder of the shards and manifest.json.")],
    curves: Annotated[Path, Option(help="Folder of <variant>.csv, the logged losses.")],
    out: Annotated[Path, Option(help="Folder for the figures.")],
    report: Annotated[Path, Option(help="File for the page.")],
) -> None:
    """Draw the figures and write the report."""
    inputs = [tables, samples, shards, curves]
    with stage_record("figures", params={}, inputs=inputs) as record:
        comparisons = table.read(tables)
        plates = draw(comparisons, Sources(samples=samples, shards=shards, curves=curves), out)
        row = comparisons["image"].row(comparisons["image"].original)
        measured = measured_on(row["n"], row["k"])
        origin = provenance([tables / name for name in (*table.FILES.values(), table.PAIRED_FILE)])
        attribution = read_json(shards / MANIFEST)["attribution"]
        page.write(report, page.render(comparisons, measured, plates, origin, attribution))
        record.artifact(report)


if __name__ == "__main__":
    run(main)
