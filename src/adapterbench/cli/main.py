"""The command line program: one module per command."""

from adapterbench.cli.adopt import adopt
from adapterbench.cli.demo import demo
from adapterbench.cli.export import export
from adapterbench.cli.plan import plan
from adapterbench.cli.upload import upload
from adapterbench.cli.variants import variants
from adapterbench.runs.program import run

HELP = "Inspect a comparison of adapters, estimate its costs; try, export, upload, import adapters."
COMMANDS = (variants, plan, demo, export, upload, adopt)


def main() -> None:
    """Run the command line."""
    run(*COMMANDS, help=HELP)
