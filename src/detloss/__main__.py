"""`python -m detloss`: the `detloss` command."""

from detloss.cli import main

main()
