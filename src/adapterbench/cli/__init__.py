"""The command `adapterbench`: what a comparison holds and costs, before anything runs."""
