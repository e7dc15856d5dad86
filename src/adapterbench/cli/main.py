"""The command line program: one module per command."""

from adapterbench.cli.adopt import adopt
from adapterbench.cli.demo import demo
from adapterbench.cli.export import export
from adapterbench.cli.plan import plan
from adapterbench.cli.variants import variants
from adapterbench.runs.program import run

HELP = "Inspect a comparison of adapters and estimate its costs; try, export and import adapters."
COMMANDS = (variants, plan, demo, export, adopt)


def main() -> None:
    """Run the command line."""
    run(*COMMANDS, help=HELP)
