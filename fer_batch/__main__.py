"""``python -m fer_batch``: the command line."""

from fer_batch.cli.main import main

main()
