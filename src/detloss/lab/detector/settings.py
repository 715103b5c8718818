"""`key=value` words: arguments of a builder that somebody else wrote."""

import ast
from collections.abc import Sequence
from typing import Any


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """{"min_size": 160} of "min_size=160": values as Python writes them, anything else is text.

    Raises:
        ValueError: a word without a name and a value, or a name twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise ValueError(f"settings has {word!r}; write key=value, as in min_size=320")
        if key in found:
            raise ValueError(f"settings has {key} twice; give it once")
        try:
            found[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[key] = text
    return found
