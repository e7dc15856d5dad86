"""The base's report: it is made whole, and says what was measured."""

from pathlib import Path

import pytest
from toy_backbone import SIDE, Toy, toy_samples

from adapterbench.core.files import MANIFEST, write_json
from adapterbench.formats.shards import write_shard
from adapterbench.pretraining.report import ReportParams, load_evaluators, report

PARAMS = ReportParams(
    items=3, shown=2, steps=2, guidance_scale=3.0, batch_size=2, resolution=SIDE, seed=0
)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Held out: two shapes in red; the same shapes in other colours are trained on."""
    folder = tmp_path / "shards"
    folder.mkdir()
    splits = {}
    held_out = sorted(s.key for s in toy_samples() if s.key.startswith("red-"))[:2]
    for split in ("train", "validation"):
        rows = [s for s in toy_samples() if (s.key in held_out) == (split == "validation")]
        shard = write_shard(folder / f"{split}-00000.tar", (row.packed() for row in rows))
        splits[split] = {"samples": len(rows), "concepts": 0, "shards": [shard]}
    write_json(folder / MANIFEST, {"attribution": {}, "dropped": {}, "drops": [], "splits": splits})
    return folder


def test_the_report_measures_every_split_that_there_is(
    toy: Toy, shards: Path, tmp_path: Path
) -> None:
    clip = Path(toy.evaluator.removeprefix("local-dir:"))
    clips = {"evaluator": clip, "image_encoder": clip}
    evaluators = load_evaluators(clips, toy.neutral, PARAMS.resolution)
    bars = report(PARAMS, shards, toy.backbone, evaluators, tmp_path / "report")
    assert bars["images"] == {"validation": 2, "train": 22}
    assert list(bars["text_to_image"]) == ["validation", "train"]  # no novel concepts here
    assert bars["text_to_image"]["train"]["items"] == 3
    assert bars["text_to_image"]["validation"]["items"] == 2
    assert bars["across_makers"]["among"] == 2
    page = (tmp_path / "report" / "README.md").read_text()
    assert f"| {bars['vae']['psnr']:.2f} | 28 |" in page
    for name in ("vae", "text_to_image_validation", "text_to_image_train"):
        assert f"({name}.png)" in page
        assert (tmp_path / "report" / f"{name}.png").is_file()
