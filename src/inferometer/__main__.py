"""`python -m inferometer`: the command line."""

from inferometer.cli import main

main()
