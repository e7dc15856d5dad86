"""The program: its commands, a file each."""

from adapterbench.cli.adopt import adopt
from adapterbench.cli.demo import demo
from adapterbench.cli.export import export
from adapterbench.cli.plan import plan
from adapterbench.cli.variants import variants
from adapterbench.runs.program import run

HELP = (
    "What a comparison of adapters holds and costs before it runs; its adapters in the browser, "
    "out of it and into it."
)
COMMANDS = (variants, plan, demo, export, adopt)


def main() -> None:
    """Run the command line."""
    run(*COMMANDS, help=HELP)
