"""`python -m detloss`: the `detloss` command."""

from detloss_command import main

if __name__ == "__main__":
    main()
