"""The program: its commands, a file each."""

from adapterbench.cli.plan import plan
from adapterbench.cli.variants import variants
from adapterbench.stage import run

HELP = "What a comparison of adapters holds and costs, before anything runs; no weight is read."
COMMANDS = (variants, plan)


def main() -> None:
    """Run the command line."""
    run(*COMMANDS, help=HELP)
