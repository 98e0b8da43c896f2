"""`python -m tunegate`."""

from tunegate.cli import main

main()
