"""The `detloss` command, also as `python -m detloss`."""

import sys


def main() -> None:
    """Run the laboratory's command line; without the extra that it needs, say what to install."""
    try:
        from detloss.lab.cli.main import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "detloss":
            raise
        message = (
            f"detloss: the command needs the laboratory ({error.name} is missing): pip install 'detloss[lab]'"
        )
        print(message, file=sys.stderr)
        raise SystemExit(2) from None
    run()


if __name__ == "__main__":
    main()
