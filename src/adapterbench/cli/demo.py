"""`adapterbench demo`: try the adapters in the browser."""

from typing import Annotated

import typer
from typer import Option

from adapterbench.cli.paths import BACKBONE, BASES, CONTROLNET, MODELS, RESULTS, SHARDS
from adapterbench.core.config import (
    BackboneParams,
    EncodeParams,
    IllustrateParams,
    SampleParams,
    load_params,
)
from adapterbench.demo.hosts import known_hosts
from adapterbench.demo.server import credentials, listening, temporary_workspace, url


def demo(
    host: Annotated[
        str,
        Option(help="Address to bind; any other than loopback needs a password."),
    ] = "127.0.0.1",
    port: Annotated[int, Option(help="Port to bind.", min=1, max=65535)] = 7860,
    allow_host: Annotated[
        list[str] | None,
        Option(help="Additional host name to accept, such as a proxy's; repeatable."),
    ] = None,
) -> None:
    """Try the trained adapters in the browser, side by side.

    Upload images, or pick some that no adapter was trained on; paint where each acts; set text,
    scales, guidance, steps and seed, or a grid of them. Every image keeps its settings, in the page
    and inside the PNG that you download. A second tab shows the table and the figures of the last
    `make repro`. It needs models/, data/ and params.yaml of this project, and starts within a
    minute.

    Nothing is sent anywhere; files are written to a temporary folder only, which is deleted at the
    end. To let others connect, set a password in the environment; the user name is `demo`:
    `ADAPTERBENCH_PASSWORD=... adapterbench demo --host 0.0.0.0`. The connection is not encrypted:
    outside a trusted network, use a TLS proxy that forwards `Host`, and pass its name with
    --allow-host; requests for unknown host names are refused.
    """
    auth = credentials(host)
    with listening(host, port) as bound, temporary_workspace() as folder:
        # slow imports, not needed for `--help` or a usage error; Gradio reads its folder on import
        from adapterbench.demo.application import application, serve
        from adapterbench.demo.generator import ImageGenerator, bases
        from adapterbench.demo.page import build
        from adapterbench.demo.references import examples, references
        from adapterbench.demo.upload import Uploads

        generator = ImageGenerator(
            MODELS,
            bases(load_params(BackboneParams, "backbone"), BACKBONE, BASES),
            load_params(EncodeParams, "encode"),
            CONTROLNET if CONTROLNET.is_dir() else None,
        )
        uploads, defaults = Uploads(), load_params(SampleParams, "sample")
        offered = references(SHARDS)
        shown = examples(SHARDS, load_params(IllustrateParams, "illustrate").prompts)
        page = build(generator, offered, shown, defaults, RESULTS, folder, uploads)
        app = application(page, uploads, known_hosts(host, allow_host or ()), auth)
        typer.echo(f"{url(bound)} (Ctrl-C stops it)")
        serve(app, bound)
