"""What the Modules share: made from the signature of their function, keeping its hyperparameters, `repr`.

Tensors are kept as buffers, so that `.to(device)` takes them along, but not in the `state_dict`: they are
settings, and a checkpoint of a model loads whatever loss trained it. A Parameter, which is learnt, stays one.
A weight that is None is a buffer too, so that one assigned later follows.
"""

import inspect
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, ClassVar

from torch import Tensor, nn

from detloss._core.checks import check_reduction, check_tensor, per_class
from detloss._core.fused import check_impl


class LossModule(nn.Module):
    """A loss with its hyperparameters: `class Name(LossModule, of=function)`, and a `forward`.

    `__init__` has the arguments of the function that `forward` has not, with their defaults, but "mean" for
    the reduction; with `keeps_weight` also a weight, which may be given there or in each call.
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init_subclass__(cls, of: Callable[..., Tensor] | None = None, keeps_weight: bool = False) -> None:
        super().__init_subclass__()
        if of is None:  # forward alone, or an `__init__` of its own
            return
        of_call = set(inspect.signature(cls.forward).parameters) - ({"weight"} if keeps_weight else set())
        hyper = [
            parameter.replace(default="mean") if name == "reduction" else parameter
            for name, parameter in inspect.signature(of).parameters.items()
            if name not in of_call
        ]
        signature = Signature([Parameter("self", Parameter.POSITIONAL_OR_KEYWORD), *hyper])

        def __init__(self: LossModule, *args: Any, **kwargs: Any) -> None:
            super(cls, self).__init__()
            given = signature.bind(self, *args, **kwargs)
            given.apply_defaults()
            self.keep(**dict(list(given.arguments.items())[1:]))

        __init__.__signature__ = signature  # type: ignore[attr-defined]
        cls.function, cls.__init__ = staticmethod(of), __init__  # type: ignore[assignment, method-assign]

    def keep(self, **hyper: Any) -> None:
        """Store hyperparameters; ValueError for what no loss takes, or not this one."""
        hyper = {name: per_class(value) for name, value in hyper.items()}
        check_reduction(hyper.get("reduction", "none"))
        check_impl(hyper.get("impl", "auto"))
        getattr(getattr(self, "function", None), "check", dict)(hyper)
        self._hyper = tuple(hyper)
        for name, value in hyper.items():
            if name in ("weight", "pos_weight") and value is not None:
                check_tensor(name, value)
            is_buffer = isinstance(value, Tensor) or name in ("weight", "pos_weight")
            if is_buffer and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value, persistent=False)
            else:
                setattr(self, name, value)

    def kept(self) -> dict[str, Any]:
        """The hyperparameters by name, with the values they have now."""
        return {name: getattr(self, name) for name in self._hyper}

    def of(self, *tensors: Tensor, **of_call: Any) -> Tensor:
        """The loss, by what is kept and what is given to this call."""
        kept = self.kept()
        if kept.get("weight") is not None:
            if of_call["weight"] is not None:
                raise ValueError(
                    "weight is given to forward and to the Module's __init__; it must be given in one place"
                )
            of_call["weight"] = kept["weight"]
        return self.function(*tensors, **{**kept, **of_call})

    def extra_repr(self) -> str:
        """The hyperparameters for `repr`; large tensors by their shape."""
        parts = []
        for name, value in self.kept().items():
            if isinstance(value, Tensor):
                value = value.tolist() if value.numel() <= 8 else f"tensor{tuple(value.shape)}"
            if value is not None:
                parts.append(f"{name}={value}")
        return ", ".join(parts)


class LogitsLoss(LossModule):
    """A Module of an elementwise loss."""

    def forward(self, inputs: Tensor, targets: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of logits `(..., C)` for targets of their shape or class indices."""
        return self.of(inputs, targets, weight=weight)


class QualityLoss(LossModule):
    """A Module of an elementwise loss that takes the quality of each row."""

    def forward(
        self, inputs: Tensor, targets: Tensor, *, quality: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of logits `(..., C)` for soft labels, or for class indices with their quality."""
        return self.of(inputs, targets, quality=quality, weight=weight)


class PairedBoxLoss(LossModule):
    """A Module of a box loss."""

    def forward(self, boxes1: Tensor, boxes2: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of predicted boxes `(..., 4)` against the target boxes at the same places."""
        return self.of(boxes1, boxes2, weight=weight)
