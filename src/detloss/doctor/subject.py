"""The loss under examination, called in one way whatever its own calling form is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

Kind = Literal["classification", "softmax", "box", "distribution"]


@dataclass(frozen=True)
class Subject:
    """Anybody's loss, its calling form settled.

    Attributes:
        name: as the user named it.
        kind: what `call` takes. classification: `(N, C)` logits and dense `(N, C)` targets in [0, 1];
            softmax: `(N, C)` logits and `(N,)` class indices; box: `(N, 4)` predicted and true boxes, xyxy;
            distribution: `(N, n + 1)` logits of bins and `(N,)` distances in bins.
        call: the user's function with its own arguments bound, exceptions passed on; takes and gives what
            `kind` says, whatever form the user's function itself takes (rows flattened, boxes converted,
            targets cast), and does nothing to values, gradients, dtypes or devices otherwise.
        raw: the user's function as it is called itself: `(predictions, targets)` in its own form.
        probabilities: it takes probabilities; `call` hands them over (`logits.sigmoid()`, or softmax).
        columns: whether a prediction may have more than one column (False: it takes `(N,)` only).
        reduction: none, mean, sum, or other, as far as trial calls tell.
        fmt: of boxes, in `raw`.
        bins: n of a distribution.
        chosen: constructor arguments and flags that were chosen for the user, to be told.
        takes: names of further arguments of the user's function (gamma, alpha, reduction, eps, ...).
        rebuild: the same subject with other hyperparameters (`rebuild(gamma=0.5)`), None where it has none.
    """

    name: str
    kind: Kind
    call: Callable[[Tensor, Tensor], Tensor]
    raw: Callable[..., Any]
    probabilities: bool = False
    columns: bool = True
    reduction: Literal["none", "mean", "sum", "other"] = "none"
    fmt: Literal["xyxy", "cxcywh", "xywh"] = "xyxy"
    bins: int = 8
    chosen: dict[str, str] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    rebuild: Callable[..., "Subject"] | None = None
