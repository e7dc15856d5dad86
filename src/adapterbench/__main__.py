"""`python -m adapterbench` is the command `adapterbench`."""

from adapterbench.cli.main import main

main()
