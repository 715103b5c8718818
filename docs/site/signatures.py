"""What the API reference has to know beyond the source, which it reads and does not run.

A loss made by `elementwise_loss` stands in the source as its formula, `f(logits, targets, hyper=default)`.
The loss also has the arguments that every elementwise loss shares, as the docstring of `elementwise_loss`
says.
"""

import griffe
from griffe import Function, Parameter, ParameterKind, Parameters

TENSORS = (("inputs", "Tensor"), ("targets", "Tensor"))
SHARED = (("weight", "Tensor | None", "None"), ("ignore_index", "int", "-100"), ("impl", "str", "'auto'"))
PLACE, KEYWORD = ParameterKind.positional_or_keyword, ParameterKind.keyword_only


SECTIONS = {"Hyperparameters:\n": "Args:\n", "Example:\n": "Examples:\n"}


class Signatures(griffe.Extension):
    """Gives each formula that `elementwise_loss` decorates the signature of its loss."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Called for everything that is read: sections of docstrings get the names that the parser knows."""
        if obj.docstring:
            for ours, known in SECTIONS.items():
                obj.docstring.value = obj.docstring.value.replace(ours, known)

    def on_function(self, *, func: Function, **_: object) -> None:
        """Called for every function that is read."""
        made = [str(d.value) for d in func.decorators if str(d.value).startswith("elementwise_loss")]
        if not made or next(iter(func.parameters)).name != "logits":
            return
        asked = [p for p in func.parameters if p.name not in ("logits", "targets", "positive")]
        tensors = [Parameter(name, annotation=kind, kind=PLACE) for name, kind in TENSORS]
        reduction = Parameter("reduction", annotation="str", kind=PLACE, default="'none'")
        shared = [
            Parameter(name, annotation=kind, kind=KEYWORD, default=value) for name, kind, value in SHARED
        ]
        if "quality=True" in made[0]:
            shared.insert(0, Parameter("quality", annotation="Tensor | None", kind=KEYWORD, default="None"))
        before = [p for p in asked if p.kind is PLACE]
        after = [p for p in asked if p.kind is not PLACE]
        func.parameters = Parameters(*tensors, *before, reduction, *after, *shared)
