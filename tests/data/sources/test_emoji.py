"""Emoji packages: fetched by the real npm client from a folder, read from small tarballs."""

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterbench.core.errors import UserError
from adapterbench.data.emoji_sets import SETS
from adapterbench.data.sources import emoji
from adapterbench.formats.image import decode

NAMES: list[dict[str, Any]] = [
    {
        "name": "UNICORN FACE",
        "unified": "1F984",
        "image": "1f984.png",
        "short_names": ["unicorn_face", "magic-horse", "one", "four"],
        "subcategory": "animal-mammal",
    },
    {
        "name": "ITALY FLAG",
        "unified": "1F1EE-1F1F9",
        "image": "1f1ee-1f1f9.png",
        "short_names": ["flag-it"],
        "subcategory": "country-flag",
    },
    {
        "name": "COOK",
        "unified": "1F9D1-200D-1F373",
        "image": "1f9d1-200d-1f373.png",
        "short_names": ["cook"],
        "subcategory": "person-role",
        "skin_variations": {
            "1F3FB": {"unified": "...", "image": "1f9d1-1f3fb-200d-1f373.png"},
        },
    },
    {
        "name": "WOMAN COOK",
        "unified": "1F469-200D-1F373",
        "image": "1f469-200d-1f373.png",
        "short_names": ["female-cook"],
        "subcategory": "person-role",
    },
    {
        "name": "MAN SURFING",
        "unified": "1F3C4-200D-2642-FE0F",
        "image": "1f3c4-200d-2642-fe0f.png",
        "short_names": ["man-surfing"],
        "subcategory": "person-sport",
    },
    {
        "name": "SURFER",
        "unified": "1F3C4",
        "image": "1f3c4.png",
        "short_names": ["surfer"],
        "subcategory": "person-sport",
    },
    {
        "name": "PEOPLE HOLDING HANDS",
        "unified": "1F9D1-200D-1F91D-200D-1F9D1",
        "image": "pair.png",
        "short_names": ["people_holding_hands"],
        "subcategory": "family",
        "skin_variations": {
            "1F3FB-1F3FF": {"unified": "...", "image": "pair-light-dark.png"},
            "1F3FB-1F3FB": {"unified": "...", "image": "pair-light-light.png"},
        },
    },
]


def params(**packages: dict[str, str]) -> emoji.Params:
    return emoji.Params.model_validate({"packages": packages})


def write_package(path: Path, members: dict[str, bytes]) -> None:
    """A tarball as npm serves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two sets; `fluent` lacks most images, `google` has one that nobody names."""
    table = json.dumps(NAMES).encode()
    images = [entry["image"] for entry in NAMES]
    images += [v["image"] for e in NAMES for v in e.get("skin_variations", {}).values()]
    files = {f"package/img/google/64/{name}": name.encode() for name in images}
    others = {
        "package/img/google/64/nobody.png": b"-",
        "package/img/google/64/deeper/1f984.png": b"not this one",
        "package/img/apple/64/1f984.png": b"nor this",
    }
    write_package(tmp_path / "google.tgz", {"package/emoji.json": table, **files, **others})
    write_package(tmp_path / "fluent.tgz", {"package/assets/1f984.webp": b"3d unicorn"})
    return tmp_path


def read(raw: Path, *sets: str) -> dict[str, Any]:
    return {sample.key: sample for sample in emoji.read(raw, pinned(raw, *sets))}


def pinned(raw: Path, *sets: str) -> emoji.Params:
    """Parameters that name the packages as they are now."""
    files = {name: raw / f"{name}.tgz" for name in sets}
    return params(
        **{
            name: {"name": "x@1", "integrity": emoji.integrity(file) if file.exists() else "none"}
            for name, file in files.items()
        }
    )


def test_every_name_of_every_set_is_a_sample(raw: Path) -> None:
    samples = read(raw, "google", "fluent")
    assert len(samples) == 2 * (7 + 3)
    assert samples["google-1f984"].image == b"1f984.png"
    assert samples["fluent-1f984"].image == b"3d unicorn"
    assert samples["fluent-1f3c4"].image == b""  # no image: `prepare` counts it
    assert samples["fluent-1f984"].meta == {
        "style": "fluent",
        "family": "fluent",
        "category": "animal-mammal",
        "name": "unicorn face",
        "tones": "",
    }
    assert list(samples) == [f"{s}-{c}" for s in ("google", "fluent") for c in sorted(
        key.removeprefix("google-") for key in samples if key.startswith("google-")
    )]  # fmt: skip


def test_captions_name_thing_tone_and_style(raw: Path) -> None:
    samples = read(raw, "google", "fluent")
    assert samples["google-1f984"].captions == (
        "unicorn face, animal mammal, noto style",
        "a noto emoji of unicorn face, animal mammal",
        "noto style unicorn face, animal mammal",
    )
    assert samples["fluent-1f1ee-1f1f9"].captions[0] == "flag of italy, country flag, 3d style"
    cook = samples["google-1f9d1-1f3fb-200d-1f373"]
    assert cook.captions[0] == "cook with light skin tone, person role, noto style"
    pair = samples["google-pair-light-dark"]
    assert pair.captions[1] == (
        "a noto emoji of people holding hands with light skin tone and dark skin tone, family"
    )
    one_tone = samples["google-pair-light-light"].captions[0]
    assert one_tone == "people holding hands with light skin tone, family, noto style"


def test_the_commonest_keywords_come_first_and_none_twice(raw: Path) -> None:
    tags = {
        "1F984": ["animal", "face", "horn", "magic", "white unicorn"],
        "1F3C4-200D-2642": ["ocean", "sport", "sporty"],  # a table may leave out -FE0F
        "1F3C4": ["ocean", "sport"],
    }
    table = [{"hexcode": code, "label": code, "tags": words} for code, words in tags.items()]
    table.append({"hexcode": "1F9D1-200D-1F373", "label": "cook"})
    write_package(raw / "keywords.tgz", {"package/en/data.json": json.dumps(table).encode()})
    samples = read(raw, "google", "keywords")
    assert {key.split("-")[0] for key in samples} == {"google"}
    assert samples["google-1f984"].captions == (
        "unicorn face, animal mammal, horn, magic, white unicorn, noto style",
        "a noto emoji of unicorn face, animal mammal",
        "noto style unicorn face, animal mammal, horn, magic, white unicorn",
    )
    man = samples["google-1f3c4-200d-2642-fe0f"].captions[0]
    assert man == "man surfing, person sport, ocean, sporty, noto style"
    assert samples["google-1f9d1-200d-1f373"].captions[0] == "cook, person role, noto style"


def test_genders_and_tones_of_a_thing_are_one_concept(raw: Path) -> None:
    concepts = {key.removeprefix("google-"): s.concept for key, s in read(raw, "google").items()}
    cooks = ("1f9d1-200d-1f373", "1f9d1-1f3fb-200d-1f373", "1f469-200d-1f373")
    assert len({concepts[code] for code in cooks}) == 1
    assert concepts["1f3c4-200d-2642-fe0f"] == concepts["1f3c4"]
    assert len(set(concepts.values())) == 5


@pytest.mark.parametrize("damage", ["missing", "cut", "garbage", "overwritten", "no table"])
def test_a_damaged_package_is_one_line(raw: Path, damage: str) -> None:
    path = raw / "google.tgz"
    data = bytearray(path.read_bytes())
    if damage == "overwritten":
        data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.unlink()
    if damage == "no table":
        write_package(path, {"package/readme.md": b""})
    elif damage != "missing":
        path.write_bytes({"cut": bytes(data[:200]), "garbage": b"x" * 500}.get(damage, bytes(data)))
    with pytest.raises(UserError, match=r"google\.tgz is missing or damaged"):
        read(raw, "google")


def test_a_package_that_is_not_the_pinned_one_is_refused(raw: Path) -> None:
    before = pinned(raw, "google", "fluent")
    write_package(raw / "fluent.tgz", {"package/assets/1f984.webp": b"another unicorn"})
    with pytest.raises(UserError, match=r"fluent\.tgz .*it is not the pinned x@1\): make it again"):
        list(emoji.read(raw, before))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda _: {}, "content = {}: Input should be a valid array"),
        (lambda table: [*table, 5], "7 = 5: Input should be an object"),
        (lambda table: [{**table[0], "short_names": []}], "0.short_names = []"),
        (lambda table: [{**table[0], "short_names": "one"}], "0.short_names = 'one'"),
        (lambda table: [{**table[0], "name": None}], "0.name = None"),
        (lambda table: [{**table[0], "skin_variations": {"1F3FZ": {"image": "a"}}}], "1F3FZ"),
        (lambda table: [{**table[0], "skin_variations": {"1F3FB": "a.png"}}], "1F3FB = 'a.png'"),
    ],
)
def test_a_table_of_another_structure_is_one_line(
    change: Callable[[Any], Any], part: str, raw: Path
) -> None:
    table = json.dumps(change(NAMES)).encode()
    write_package(raw / "google.tgz", {"package/emoji.json": table})
    with pytest.raises(UserError, match=r"google\.tgz is missing or damaged \(") as caught:
        read(raw, "google")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("icons.json", []),
        ("icons.json", {"icons": []}),
        ("icons.json", {"icons": {"cook": {"body": None}}}),
        ("icons.json", {"icons": {"cook": {"body": "", "width": "8"}}}),
        ("chars.json", ["1f984"]),
        ("chars.json", {"1f984": 5}),
    ],
)
def test_drawings_of_another_structure_are_one_line(member: str, content: Any, raw: Path) -> None:
    files = {"icons.json": {"icons": {}}, "chars.json": {}, member: content}
    members = {f"package/{name}": json.dumps(value).encode() for name, value in files.items()}
    write_package(raw / "fxemoji.tgz", members)
    with pytest.raises(UserError, match=r"fxemoji\.tgz is missing or damaged \(.*Input should"):
        read(raw, "fxemoji")


@pytest.mark.parametrize(
    "content", [{}, [[]], [{"hexcode": "1F984"}], [{"label": 1, "hexcode": ""}]]
)
def test_words_of_another_structure_are_one_line(content: Any, raw: Path) -> None:
    write_package(raw / "keywords.tgz", {"package/en/data.json": json.dumps(content).encode()})
    with pytest.raises(UserError, match=r"keywords\.tgz is missing or damaged \("):
        read(raw, "google", "keywords")


def test_an_unknown_set_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.fetch\.packages\.apple .*google, twitter, fluent"):
        emoji.fetch(params(apple={"name": "a@1", "integrity": "b"}), tmp_path / "raw")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package in a folder, which npm takes for one of a registry and needs no network for."""
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_update_notifier", "false")
    folder = tmp_path / "toy-emoji"
    folder.mkdir()
    (folder / "package.json").write_text('{"name": "toy-emoji", "version": "1.0.0"}')
    (folder / "emoji.json").write_text("[]")
    return str(folder)


def fetched(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "raw").iterdir())


def test_a_package_is_fetched_once_and_only_as_pinned(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    wrong = params(google={"name": package, "integrity": "sha512-wrong"})
    with pytest.raises(UserError, match="not the pinned sha512-wrong") as caught:
        emoji.fetch(wrong, raw)
    assert fetched(tmp_path) == []

    found = re.search(r"has digest (\S+),", str(caught.value))
    assert found is not None
    right = params(google={"name": package, "integrity": found[1]})
    emoji.fetch(right, raw)
    assert fetched(tmp_path) == ["google.tgz"]
    with tarfile.open(raw / "google.tgz") as tar:
        assert "package/emoji.json" in tar.getnames()

    monkeypatch.setattr(emoji, "run_npm", lambda _: pytest.fail("fetched again"))
    emoji.fetch(right, raw)


def test_the_packaged_npm_serves_where_the_machine_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = emoji.run_npm(["--version"])
    assert done.returncode == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+", done.stdout.strip())


def test_no_npm_at_all_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(emoji, "PACKAGED_NPM", "import no_such_package")
    with pytest.raises(UserError, match="No module named 'no_such_package'") as caught:
        emoji.npm_pack("a@1", tmp_path / "raw" / "a.tgz")
    assert "\n" not in str(caught.value)
    assert fetched(tmp_path) == []


@pytest.mark.parametrize(
    ("stdout", "stderr", "cause"),
    [
        ('{"error": {"code": "E404", "summary": "Not Found - GET https://x/y"}}', "", "Not Found"),
        ("", "npm error first\nnpm error last\n\n", "npm error last"),
        ("[]", "killed", "killed"),
        ("", "", "no answer"),
    ],
)
def test_a_failing_npm_is_one_line_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stdout: str, stderr: str, cause: str
) -> None:
    answer = subprocess.CompletedProcess(["npm"], 1, stdout, stderr)
    monkeypatch.setattr(emoji, "run_npm", lambda _: answer)
    with pytest.raises(UserError, match=f"cannot fetch a@1 with npm .*{cause}") as caught:
        emoji.fetch(params(google={"name": "a@1", "integrity": "b"}), tmp_path / "raw")
    assert "\n" not in str(caught.value)
    assert fetched(tmp_path) == []


def test_a_real_npm_without_network_says_why(package: str, tmp_path: Path) -> None:
    """Offline, and nothing in its cache."""
    assert package
    with pytest.raises(UserError, match=r"cannot fetch toy-absent@1\.0\.0 .*toy-absent"):
        emoji.npm_pack("toy-absent@1.0.0", tmp_path / "raw" / "a.tgz")


def test_an_interrupted_fetch_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(arguments: list[str]) -> None:
        (Path(arguments[arguments.index("--pack-destination") + 1]) / "half.tgz").write_text("x")
        raise KeyboardInterrupt

    monkeypatch.setattr(emoji, "run_npm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        emoji.fetch(params(google={"name": "a@1", "integrity": "b"}), tmp_path / "raw")
    assert fetched(tmp_path) == []


def iconify(tarball: Path, icons: dict[str, str], chars: dict[str, str] | None = None) -> None:
    """An Iconify package of 8-pixel drawings."""
    table = {
        "icons": {name: {"body": body} for name, body in icons.items()},
        "width": 8,
        "height": 8,
    }
    write_package(
        tarball,
        {
            "package/icons.json": json.dumps(table).encode(),
            "package/chars.json": json.dumps(chars or {}).encode(),
        },
    )


RED = '<rect width="8" height="8" fill="#f00"/>'
CUT = '<rect width="8" height="8" fill='


def test_named_drawings_are_found_by_any_name_of_the_tables(raw: Path) -> None:
    labels = [
        {"hexcode": "1F3C4", "label": "person surfing"},
        {"hexcode": "1F1EE-1F1F9", "label": "flag: Italy"},
        {
            "hexcode": "1F9D1-200D-1F373",
            "label": "cook",
            "skins": [{"hexcode": "1F9D1-1F3FB-200D-1F373", "label": "cook: light skin tone"}],
        },
    ]
    write_package(raw / "keywords.tgz", {"package/en/data.json": json.dumps(labels).encode()})
    names = ["person-surfing", "flag-for-italy", "cook-light-skin-tone", "magichorse", "nobody"]
    iconify(raw / "fxemoji.tgz", dict.fromkeys(names, RED))
    samples = read(raw, "fxemoji", "keywords")
    found = {key for key, sample in samples.items() if sample.image}
    assert found == {
        "fxemoji-1f3c4",
        "fxemoji-1f1ee-1f1f9",
        "fxemoji-1f9d1-1f3fb-200d-1f373",
        "fxemoji-1f984",
    }
    assert samples["fxemoji-nobody"].problem == "no such emoji"
    image = decode(samples["fxemoji-1f984"].image)
    assert (image.size, image.getpixel((64, 64))) == ((128, 128), (255, 0, 0))
    assert samples["fxemoji-1f984"].captions[0] == "unicorn face, animal mammal, firefox style"
    assert samples["fxemoji-1f984"].meta["family"] == "fxemoji"


def test_code_points_of_a_package_go_before_names(raw: Path) -> None:
    iconify(raw / "openmoji.tgz", {"cook": RED}, {"1f984": "cook"})
    assert list(read(raw, "openmoji")) == ["openmoji-1f984"]


def test_a_second_drawing_of_an_emoji_has_a_key_of_its_own(raw: Path) -> None:
    iconify(raw / "streamline.tgz", {"cook": RED, "cook-2": RED})
    assert list(read(raw, "streamline")) == [
        "streamline-1f9d1-200d-1f373",
        "streamline-1f9d1-200d-1f373-2",
    ]


def test_a_drawing_that_does_not_parse_is_counted(raw: Path) -> None:
    iconify(raw / "noto_v1.tgz", {"cook": CUT, "surfer": RED})
    samples = read(raw, "noto_v1")
    assert samples["noto_v1-1f9d1-200d-1f373"].image == b""
    assert samples["noto_v1-1f9d1-200d-1f373"].problem == "not a valid SVG"
    assert samples["noto_v1-1f3c4"].image


def test_every_set_of_the_shared_group_has_a_style_of_its_own() -> None:
    assert len({images.style for images in SETS.values()}) == len(SETS)
