"""The laboratory: what a person runs on a command line, a room for each command; needs `detloss[lab]`."""
