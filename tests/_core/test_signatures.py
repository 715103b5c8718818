"""The docstring of a loss: that of its formula, with the arguments that all losses share."""

import inspect
import re

import pytest

from detloss import losses
from detloss.formula import box_loss, elementwise_loss

FUNCTIONS = [name for name in losses.__all__ if inspect.isfunction(getattr(losses, name))]


@elementwise_loss(quality=True)
def described(logits, targets, tau=1.0, *, shift=0.0):
    """What it is for.

    Args:
        shift: added to the logits,
            before they are divided.
        tau: a temperature.

    Source: nobody.
    """
    return (logits + shift) / tau * targets


@box_loss
def far(first, second, scale=1.0, eps=0.0):
    """How far.

    Raises:
        RuntimeError: never.

    Args:
        eps: not that of the others.
    """
    return (first.left - second.left).abs() / scale + eps


@box_loss
def bare(first, second):
    return (first.left - second.left).abs()


def arguments(loss) -> list[str]:
    """The arguments that the docstring describes, in its order."""
    section = re.search(r"^Args:\n((?: .*\n)+)", inspect.getdoc(loss), re.MULTILINE)
    return re.findall(r"^    (\w+): \S", section[1], re.MULTILINE)


def test_arguments_of_the_formula_are_described_with_the_others():
    assert arguments(described) == list(inspect.signature(described).parameters)
    assert described.__doc__.startswith("What it is for.\n\nArgs:\n    inputs: logits")
    assert (
        "    shift: added to the logits,\n        before they are divided.\n    quality:" in described.__doc__
    )
    assert described.__doc__.endswith("\n\nSource: nobody.")


def test_what_the_formula_says_itself_comes_first():
    assert arguments(far) == [name for name in inspect.signature(far).parameters if name != "scale"]
    assert "    eps: not that of the others.\n" in far.__doc__
    assert far.__doc__.endswith("Raises:\n    RuntimeError: never.")


def test_a_formula_without_a_docstring():
    assert bare.__doc__.startswith("Args:\n    boxes1:")
    assert arguments(bare) == list(inspect.signature(bare).parameters)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_of_every_loss_is_described(name):
    loss = getattr(losses, name)
    text = inspect.getdoc(loss)
    assert [text.count(f"\n{section}:\n") for section in ("Args", "Returns", "Raises")] == [1, 1, 1]
    assert arguments(loss) == list(inspect.signature(loss).parameters)
