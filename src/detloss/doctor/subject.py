"""The loss under examination, called in one way whatever its own calling form is."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from detloss.boxes import box_convert

Kind = Literal["classification", "softmax", "box", "distribution"]
Call = Callable[[Tensor, Tensor], Any]


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
        classes: columns of softmax logits: 4, or as many as it has weights for.
        one_by_one: `call` goes through the pairs of boxes itself, since the function takes a single box.
        chosen: constructor arguments and flags that were chosen for the user, to be told.
        takes: names of further arguments of the user's function (gamma, alpha, reduction, eps, ...).
        defaults: the values of those that have one.
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
    classes: int = 4
    one_by_one: bool = False
    chosen: dict[str, str] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    rebuild: Callable[..., "Subject"] | None = None


class NoTensor(TypeError):
    """It returned something else than a tensor."""


def value_of(result: Any) -> Tensor:
    """The loss in what a function returns: itself, the first of a tuple, or "loss" of a dict."""
    if isinstance(result, dict) and result:
        result = result.get("loss", next(iter(result.values())))
    if isinstance(result, tuple | list) and result:
        result = result[0]
    if not isinstance(result, Tensor):
        raise NoTensor(f"it returned {'nothing' if result is None else type(result).__name__}, not a tensor")
    return result


@dataclass(frozen=True)
class Form:
    """One way in which people write a loss of some kind.

    Attributes:
        kind: of loss.
        says: the form in words.
        bind: makes `Subject.call` of the user's function.
        probabilities, columns, fmt, one_by_one: as in `Subject`.
        times: how many equal rows of the user's stand for one: a sum is that much too large.
    """

    kind: Kind
    says: str
    bind: Callable[[Call], Callable[[Tensor, Tensor], Tensor]]
    probabilities: bool = False
    columns: bool = True
    fmt: Literal["xyxy", "cxcywh", "xywh"] = "xyxy"
    times: int = 1
    one_by_one: bool = False


def forms(kind: Kind) -> Iterator[Form]:
    """All forms of a kind, the usual first."""
    yield from {"classification": _dense, "softmax": _indices, "box": _boxes, "distribution": _bins}[kind]()


def _dense() -> Iterator[Form]:
    def same(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: value_of(raw(x, t))

    def flat(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        def call(x: Tensor, t: Tensor) -> Tensor:
            value = value_of(raw(x.reshape(-1), t.reshape(-1)))
            return value.reshape(x.shape) if value.numel() == x.numel() and value.ndim else value

        return call

    def stacked(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: _unstacked(value_of(raw(x.unsqueeze(0), t.unsqueeze(0))), x)

    def image(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: _unstacked(value_of(raw(x[..., None, None], t[..., None, None])), x)

    def indexed(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        def call(x: Tensor, t: Tensor) -> Tensor:
            if not ((t == 0) | (t == 1)).all() or (t.sum(-1) > 1).any():
                raise ValueError("it takes class indices: at most one class a row, no soft label")
            classes = t.to(torch.long).argmax(-1)
            return value_of(raw(x, torch.where(t.sum(-1) > 0, classes, x.shape[-1])))

        return call

    def from_one(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        return indexed(lambda x, classes: raw(x, (classes + 1) % (x.shape[-1] + 1)))

    def scored(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        pair: Callable[[Tensor, Any], Any] = raw

        def call(x: Tensor, t: Tensor) -> Tensor:
            if ((t > 0).sum(-1) > 1).any():
                raise ValueError("it takes one class and its score a row")
            best = t.max(-1)
            classes = torch.where(best.values > 0, best.indices, x.shape[-1])
            return value_of(pair(x, (classes, best.values)))

        return call

    yield from _both("dense targets", "classification", same)
    yield from _both(
        "(N,) predictions and targets, no more dimensions", "classification", flat, columns=False
    )
    yield from _both("(B, N, C) predictions and targets", "classification", stacked)
    yield from _both("(N, C, H, W) predictions and targets", "classification", image)
    yield Form("classification", "class indices, one sigmoid a class", indexed)
    yield Form("classification", "class indices from 1, 0 is background, one sigmoid a class", from_one)
    yield Form("classification", "a pair (class indices, scores), one sigmoid a class", scored)


def _unstacked(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(like.shape) if value.ndim and value.numel() == like.numel() else value


def _both(
    says: str, kind: Kind, bind: Callable[[Call], Callable[[Tensor, Tensor], Tensor]], columns: bool = True
) -> Iterator[Form]:
    """A form with logits, and with probabilities."""

    def from_probabilities(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        call = bind(raw)
        if kind == "softmax":
            return lambda x, t: call(x.softmax(-1), t)
        return lambda x, t: call(x.sigmoid(), t)

    yield Form(kind, says, bind, columns=columns)
    yield Form(kind, f"{says}; probabilities", from_probabilities, probabilities=True, columns=columns)


def _indices() -> Iterator[Form]:
    def same(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: _a_row(value_of(raw(x, t)), x)

    def one_hot(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        def call(x: Tensor, t: Tensor) -> Tensor:
            hot = torch.nn.functional.one_hot(t, x.shape[-1]).to(x.dtype)
            value = value_of(raw(x, hot))
            return value.sum(-1) if value.shape == x.shape else _a_row(value, x)

        return call

    def column(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: _a_row(value_of(raw(x, t.unsqueeze(-1))), x)

    def image(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: _a_row(value_of(raw(x[..., None, None], t[..., None, None])), x)

    def logs(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: _a_row(value_of(raw(x.log_softmax(-1), t)), x)

    yield from _both("class indices", "softmax", same)
    yield from _both("one-hot targets", "softmax", one_hot)
    yield from _both("class indices (N, 1)", "softmax", column)
    yield from _both("(N, C, H, W) predictions, (N, H, W) class indices", "softmax", image)
    yield Form("softmax", "class indices; log-probabilities", logs, probabilities=True)


def _a_row(value: Tensor, rows: Tensor) -> Tensor:
    """`(N,)` of `(N, 1)`, `(N, 1, 1)`; the rest as it is."""
    return value.reshape(-1) if value.ndim > 1 and value.numel() == len(rows) else value


def _boxes() -> Iterator[Form]:
    for fmt in ("xyxy", "cxcywh", "xywh"):
        for says, bind in (
            ("pairs of boxes", _pairs),
            ("all pairs of boxes, N × M", _diagonal),
            ("one box (4,) against (N, 4)", _one_against),
            ("one box (4,) at a time", _one_at_a_time),
        ):

            def in_format(raw: Call, bind: Any = bind, fmt: Any = fmt) -> Callable[[Tensor, Tensor], Tensor]:
                call = bind(raw)
                if fmt == "xyxy":
                    return call
                return lambda a, b: call(box_convert(a, "xyxy", fmt), box_convert(b, "xyxy", fmt))

            yield Form("box", says, in_format, fmt=fmt, one_by_one=bind in (_one_against, _one_at_a_time))


def _pairs(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
    def call(a: Tensor, b: Tensor) -> Tensor:
        value = value_of(raw(a, b))
        if value.shape == a.shape:
            return value.sum(-1)  # one a coordinate
        if value.ndim > 1 and value.numel() != len(a):
            raise ValueError(f"it returned shape {tuple(value.shape)} for {len(a)} pairs")
        return _a_row(value, a)

    return call


def _diagonal(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
    def call(a: Tensor, b: Tensor) -> Tensor:
        value = value_of(raw(a, b))
        if value.shape != (len(a), len(b)):
            raise ValueError(f"it returned shape {tuple(value.shape)}, not N × M")
        return value.diagonal()

    return call


def _one_against(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
    return _each(lambda one, other: value_of(raw(one, other[None])))


def _one_at_a_time(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
    return _each(lambda one, other: value_of(raw(one, other)))


def _each(call: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Pair by pair; of no pairs nothing."""
    return lambda a, b: torch.cat([call(*pair).reshape(1) for pair in zip(a, b)] or [a.sum(-1)])


def _bins() -> Iterator[Form]:
    def same(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: _a_row(value_of(raw(x, y)), x)

    def column(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: _a_row(value_of(raw(x, y[:, None])), x)

    def sides(arrange: Callable[[Tensor], Tensor]) -> Callable[[Call], Callable[[Tensor, Tensor], Tensor]]:
        """Four equal sides stand for one: their mean is its value."""

        def bind(raw: Call) -> Callable[[Tensor, Tensor], Tensor]:
            def call(x: Tensor, y: Tensor) -> Tensor:
                value = value_of(raw(arrange(x), y[:, None].expand(-1, 4)))
                if value.ndim and value.numel() == 4 * len(x):
                    return value.reshape(len(x), 4).mean(-1)
                return _a_row(value, x)

            return call

        return bind

    arrangements: dict[str, Callable[[Tensor], Tensor]] = {
        "(4 N, n+1)": lambda x: x[:, None].expand(-1, 4, -1).reshape(-1, x.shape[-1]),
        "(N, 4 (n+1))": lambda x: x.repeat(1, 4),
        "(N, 4, n+1)": lambda x: x[:, None].expand(-1, 4, -1),
    }
    yield Form("distribution", "(N, n+1) logits, (N,) distances", same)
    for shape, arrange in arrangements.items():
        yield Form("distribution", f"{shape} logits, (N, 4) distances", sides(arrange), times=4)
    yield Form("distribution", "(N, n+1) logits, (N, 1) distances", column)


def make_subject(
    form: Form, loaded: Any, reduction: Any, chosen: dict[str, str], bins: int = 8, classes: int = 4
) -> Subject:
    """The subject of a loaded loss in a form.

    Args:
        form: the form.
        loaded: a `Loaded`, or anything called as it is, with `takes`, `defaults` and `with_hyper`.
        reduction: as in `Subject`.
        chosen: as in `Subject`.
        bins, classes: as in `Subject`.
    """

    def rebuild(**hyper: Any) -> Subject:
        return make_subject(form, loaded.with_hyper(**hyper), reduction, chosen, bins, classes)

    call = form.bind(loaded)
    if reduction == "sum" and form.times > 1:
        whole, times = call, form.times
        call = lambda x, t: whole(x, t) / times  # noqa: E731
    return Subject(
        name=loaded.name,
        kind=form.kind,
        call=call,
        raw=loaded,
        probabilities=form.probabilities,
        columns=form.columns,
        reduction=reduction,
        fmt=form.fmt,
        bins=bins,
        classes=classes,
        one_by_one=form.one_by_one,
        chosen=dict(chosen),
        takes=loaded.takes,
        defaults=loaded.defaults,
        rebuild=rebuild if loaded.takes else None,
    )
