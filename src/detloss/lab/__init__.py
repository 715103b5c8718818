"""The laboratory: what a person runs on a command line, one room a command."""
