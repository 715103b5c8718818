# ruff: noqa
1 / 0


def loss(x, t):
    return x
