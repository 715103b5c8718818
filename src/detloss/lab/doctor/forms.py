"""The forms in which people write a loss, as a table of flags, and how a loss is called in one of them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss.boxes import box_convert
from detloss.lab.doctor.loading import Loaded

Kind = Literal["classification", "softmax", "box", "distribution"]
Reduction = Literal["none", "mean", "sum", "other"]
BINS = 8


class NoTensor(TypeError):
    """It returned something else than a tensor: `value` says what."""

    def __init__(self, value: Any) -> None:
        super().__init__(f"it returned {type(value).__name__}, not a tensor")
        self.value = value


class Form(NamedTuple):
    """One way in which people write a loss of some kind.

    Attributes:
        kind: what the doctor calls it with. classification: `(N, C)` logits and dense `(N, C)` targets in
            [0, 1]; softmax: `(N, C)` logits and `(N,)` class indices; box: `(N, 4)` predicted and true boxes,
            xyxy; distribution: `(N, n + 1)` logits of bins and `(N,)` distances in bins.
        layout: the shapes that the loss itself takes, see `LAYOUTS`.
        targets: what it takes as targets, see `TARGETS`.
        takes: "logits", "probabilities" or "log-probabilities".
        fmt: of boxes.
    """

    kind: Kind
    layout: str = "rows"
    targets: str = "dense"
    takes: str = "logits"
    fmt: Literal["xyxy", "cxcywh", "xywh"] = "xyxy"

    @property
    def says(self) -> str:
        """The form in words; "" where it is the usual one of its kind."""
        usual = self.targets == FORMS[self.kind][0].targets
        parts = (LAYOUTS[self.layout][0], "" if usual else TARGETS[self.targets])
        return ", ".join(part for part in parts if part)

    @property
    def columns(self) -> bool:
        """Whether a prediction may have more than one column."""
        return self.layout != "flat"


TARGETS = {
    "dense": "dense targets",
    "index": "class indices, C is the background",
    "index from 1": "class indices from 1, 0 is the background",
    "scored": "a pair of class indices and scores",
    "one-hot": "one-hot targets",
}
_Lay = Callable[[Tensor, Any], tuple[Any, Any]]
LAYOUTS: dict[str, tuple[str, _Lay]] = {
    "rows": ("", lambda x, t: (x, t)),
    "flat": ("(N,) predictions and targets", lambda x, t: (x.reshape(-1), t.reshape(-1))),
    "batch": ("(B, N, C) predictions", lambda x, t: (x[None], t[None])),
    "column": ("targets (N, 1)", lambda x, t: (x, t[..., None])),
    "all pairs": ("all pairs of boxes, N × M", lambda a, b: (a, b)),
    "one against all": ("one box (4,) against (N, 4)", lambda a, b: (a, b[None])),
    "one box": ("one box (4,) at a time", lambda a, b: (a, b)),
    "(4 N, n+1)": ("(4 N, n+1) logits, (N, 4) distances", lambda x, y: (_4(x).flatten(0, 1), _4(y))),
    "(N, 4 (n+1))": ("(N, 4 (n+1)) logits, (N, 4) distances", lambda x, y: (_4(x).flatten(1), _4(y))),
    "(N, 4, n+1)": ("(N, 4, n+1) logits, (N, 4) distances", lambda x, y: (_4(x), _4(y))),
}
"""In words, and how predictions and targets are laid out."""
ONE_BY_ONE = ("one against all", "one box")
FOUR_SIDES = ("(4 N, n+1)", "(N, 4 (n+1))", "(N, 4, n+1)")


def _spatial(axes: int, one: bool, column: bool) -> _Lay:
    """Rows as images of a pixel each, or as pixels of one; class indices with an axis of their own."""

    def lay(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t[:, None] if column else t
        x, t = (x.t()[None], t.t()[None]) if one else (x[..., None], t[..., None])
        more = (None,) * (axes - 1)
        return x[(..., *more)], t[(..., *more)]

    return lay


SPATIAL, JOINED = ("image", "volume", "line"), {"rows": "one image", "column": "one image column"}
"""`JOINED`: all rows as the pixels of one image, for what is of images."""
for _name, _axes in zip(SPATIAL, ("H, W", "D, H, W", "L")):
    for _column, _targets_too in (("", ""), (" column", f", targets (N, 1, {_axes})")):
        _count, _says = _axes.count(",") + 1, f"(N, C, {_axes}) predictions{_targets_too}"
        LAYOUTS[_name + _column] = _says, _spatial(_count, False, bool(_column))
        LAYOUTS[f"one {_name}{_column}"] = f"{_says}, N = 1", _spatial(_count, True, bool(_column))
        JOINED[_name + _column] = f"one {_name}{_column}"
_P = ("logits", "probabilities")
_OF_SOFTMAX = [(layout, targets) for layout in ("rows", *SPATIAL) for targets in ("index", "one-hot")]
_OF_SOFTMAX += [(layout, "index") for layout in ("column", "image column", "volume column")]
_OF_SIGMOID = [(layout, takes) for layout in ("rows", "flat", "batch", *SPATIAL) for takes in _P]
FORMS: dict[Kind, list[Form]] = {
    "classification": [
        *(Form("classification", layout, takes=takes) for layout, takes in _OF_SIGMOID),
        *(Form("classification", targets=one) for one in ("index", "index from 1", "scored")),
    ],
    "softmax": [
        *(Form("softmax", layout, targets, p) for layout, targets in _OF_SOFTMAX for p in _P),
        Form("softmax", "rows", "index", "log-probabilities"),
    ],
    "box": [
        Form("box", layout, fmt=fmt)
        for fmt in ("xyxy", "cxcywh", "xywh")
        for layout in ("rows", "all pairs", *ONE_BY_ONE)
    ],
    "distribution": [Form("distribution", layout, "index") for layout in ("rows", *FOUR_SIDES, "column")],
}
"""All forms of a kind, the usual first."""


def _4(rows: Tensor) -> Tensor:
    """Four equal sides stand for one: their mean is its value."""
    return torch.stack((rows,) * 4, 1)


def call_in_form(form: Form, loss: Callable[[Any, Any], Any], x: Tensor, t: Tensor) -> Tensor:
    """The value: one per element, per row, per pair, or of all, whatever shape the loss itself gives."""
    p, targets = _squashed(form, x), _targets(form, x, t)
    if form.fmt != "xyxy":
        p, targets = (box_convert(boxes, "xyxy", form.fmt) for boxes in (x, t))
    lay = LAYOUTS[form.layout][1]
    if form.layout in ONE_BY_ONE:
        values = [value_of(loss(*lay(one, other))).reshape(1) for one, other in zip(p, targets)]
        return torch.cat(values or [x.sum(-1)])
    value = value_of(loss(*lay(p, targets)))
    if form.layout == "all pairs":
        if value.shape != (len(x), len(t)):
            raise ValueError(f"it returned shape {tuple(value.shape)}, not N × M")
        return value.diagonal()
    if form.layout in JOINED.values() and value.numel() == x.numel():
        value = value.reshape(x.t().shape).t()
    if form.kind == "classification":
        return value.reshape(x.shape) if value.ndim and value.numel() == x.numel() else value
    if form.layout in FOUR_SIDES and value.ndim and value.numel() == 4 * len(x):
        return value.reshape(len(x), 4).mean(-1)
    if value.shape == x.shape:
        return value.sum(-1)  # one per coordinate, or per class
    if form.kind == "box" and value.ndim > 1 and value.numel() != len(x):
        raise ValueError(f"it returned shape {tuple(value.shape)} for {len(x)} pairs")
    return value.reshape(-1) if value.ndim > 1 and value.numel() == len(x) else value


def _squashed(form: Form, x: Tensor) -> Tensor:
    if form.takes == "log-probabilities":
        return x.log_softmax(-1)
    if form.takes == "probabilities":
        return x.sigmoid() if form.kind == "classification" else x.softmax(-1)
    return x


def _targets(form: Form, x: Tensor, t: Tensor) -> Any:
    if form.targets == "one-hot":
        return F.one_hot(t, x.shape[-1]).to(x.dtype)
    if form.targets == "dense" or form.kind != "classification":
        return t
    if ((t > 0).sum(-1) > 1).any() or (form.targets != "scored" and not ((t == 0) | (t == 1)).all()):
        raise ValueError("it takes class indices: at most one class per row, no soft label")
    best, columns = t.max(-1), x.shape[-1]
    classes = torch.where(best.values > 0, best.indices, columns)
    if form.targets == "scored":
        return classes, best.values
    return classes if form.targets == "index" else (classes + 1) % (columns + 1)


def value_of(result: Any) -> Tensor:
    """The loss in what a function returns: itself, the first of a tuple, or "loss" of a dict."""
    if isinstance(result, dict) and result:
        result = result.get("loss", next(iter(result.values())))
    if isinstance(result, tuple | list) and result:
        result = result[0]
    if not isinstance(result, Tensor):
        raise NoTensor(result)
    return result


@dataclass(frozen=True)
class Subject:
    """The loss under examination, called in one way whatever its own form is.

    Attributes:
        loaded: the user's function as it is called itself.
        form: in which it is called.
        reduction: as far as trial calls tell.
        classes: columns of softmax logits: 4, or as many as it has weights for.
        region: what an element costs depends on those beside it (Dice, mining): alone it says nothing.
        divisor: what it divides by where it has no value without positives: "positives", their number, or
            "targets", the sum of their targets; "" where it has a value.
        narrow: it does not run in float64, and is called in float32 there.
        chosen: what was chosen for the user, to be told.
    """

    loaded: Loaded
    form: Form
    reduction: Reduction = "none"
    classes: int = 4
    region: bool = False
    divisor: Literal["", "positives", "targets"] = ""
    narrow: bool = False
    chosen: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """What it is called with."""
        return self.form.kind

    @property
    def probabilities(self) -> bool:
        """Whether it takes probabilities, or their logarithms."""
        return self.form.takes != "logits"

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The value for `(N, C)` logits and targets, or what else the kind says."""
        if self.narrow and x.dtype == torch.float64:
            labels = t.float() if t.is_floating_point() else t
            return self(x.float(), labels).to(x.dtype)
        value = call_in_form(self.form, self.loaded, x, t)
        sum_of_sides = self.reduction == "sum" and self.form.layout in FOUR_SIDES
        return value / 4 if sum_of_sides else value

    def with_hyper(self, **hyper: Any) -> "Subject":
        """The same loss with other hyperparameters."""
        return replace(self, loaded=self.loaded.with_hyper(**hyper))
