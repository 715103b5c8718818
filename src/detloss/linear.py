"""The last layer and its loss in one: the logits of a head exist only a block of rows at a time.

A head of 1203 classes on 33,600 locations makes 160 MB of logits, and a loss keeps several times that for the
backward pass. Here a block of rows is multiplied by the weight and goes through the loss, and its gradient
goes on to the input and the weight at once; then the next block takes its place.

The idea is that of Liger Kernel's fused linear cross entropy, Apple's cut cross-entropy and
`torch.nn.functional.linear_cross_entropy`, which are for a softmax and its cross entropy. This one takes any
loss that is a sum over rows: sigmoid losses, soft labels, weights, background.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detloss._core.checks import MASKS, broadcastable, check_reduction, check_tensor
from detloss._core.dtypes import arithmetic_dtype
from detloss._core.modules import LossModule
from detloss._core.private import graph_is_kept, is_batched_gradient, is_watched

Parts = tuple[Tensor, Tensor, Tensor | None]  # input (N, K), weight (C, K), bias (C,)


def linear_loss(
    loss: Callable[..., Tensor],
    input: Tensor | Sequence[Tensor],
    linear_weight: Tensor,
    targets: Tensor | Sequence[Tensor],
    *,
    linear_bias: Tensor | None = None,
    reduction: str = "sum",
    anchors: int = 1,
    **hyper: Any,
) -> Tensor:
    """A linear layer and its classification loss in one, so that all logits never exist together.

    It saves memory where there are many classes or rows. Value and gradients are those of

        loss(F.linear(input, linear_weight, linear_bias), targets, reduction=reduction, **hyper)

    up to rounding. The logits of a block of rows exist at a time. A gradient is computed with the value, by
    the matrix products that it takes anyway, and only for what requires one.

    Kept for the backward pass: input, weight, bias and targets themselves, and of each of the first three
    that requires grad a gradient of its size. Half-precision weights sum their gradient in float32. float16
    logits reach the loss in float32, and their gradients stay float32 until the upstream gradient has
    multiplied them, so that a gradient scaler saves the small ones, as it does without this function.

    All logits exist after all for reduction "none", whose result has their size; where an argument of the
    loss requires grad (a gamma that is learnt); in a backward pass with `create_graph=True`; and under the
    transforms of `torch.func`, forward-mode differentiation and the caller's own `torch.compile`.

    Args:
        loss: a classification loss of this package, or a function `loss(logits, targets, *, reduction,
            **hyper)` of logits `(N, C)` whose "sum" is a sum over rows and whose "mean" divides that by a
            number proportional to the rows that count, and is 0 if none does. For another mean, divide a
            sum.
        input: features `(..., K)`, floating; all dimensions but the last are rows. Or a list of them, such as
            the levels of a pyramid under one head: `targets`, and the arguments of `loss` that hold one value
            per row, are then lists too. The levels become one tensor, a copy of the features.
        linear_weight: `(C, K)`, or `(A * C, K)` with the C classes of each of A anchors together. For a 1×1
            convolution, pass `conv.weight.flatten(1)` and its features `(B, K, H, W)` as
            `features.movedim(1, -1)`; the targets are `(B, H, W)` or `(B, H, W, C)`.
        targets: class indices `(...)`, or soft labels `(..., C)`, as `loss` takes them for `(N, C)` logits.
        linear_bias: `(C,)`, `(A * C,)` for anchors, or None.
        reduction: "sum", "mean" or "none".
        anchors: A, how many rows of logits each row of the input has. Where it is above 1, targets and
            whatever else holds one value per row have shape `(..., A)`, soft labels `(..., A, C)`.
        **hyper: the other arguments of `loss`. Those that hold one value per row are cut with the rows: with
            class indices a `weight` of their shape; a `weight` or `pos_weight` that broadcasts to `(..., C)`
            and varies along rows; and any other tensor whose shape begins with `input.shape[:-1]`, such as
            `quality`, except `alpha`. The rest goes to every block as it is.

    Returns:
        The loss; for "none" of shape `(..., C)`, or `(...)` for a softmax loss; with anchors `(..., A, C)`
        or `(..., A)`; of a list, the rows of all levels one after another are the first dimension. Gradients
        have the dtypes of their tensors. Under autocast the products have its dtype, as in `F.linear`.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit; a `loss` that does not return one number, or
            that uses a tensor requiring grad that is not among its arguments; all that `loss` raises.

    Sources: for cross entropy, Liger Kernel, arXiv:2410.10989, and cut cross-entropy, arXiv:2411.09009.
    """
    check_reduction(reduction)
    features, labels, hyper = _joined(input, targets, hyper)
    _check(features, linear_weight, linear_bias, labels, anchors)
    classes = len(linear_weight) // anchors
    rows = _rows(features, anchors)
    if labels.dtype in MASKS and labels.shape == (*rows, classes):
        labels = labels.to(arithmetic_dtype(features.dtype))
    if not rows:  # one row, nothing to cut
        return loss(F.linear(features, linear_weight, linear_bias), labels, reduction=reduction, **hyper)
    parts = (_as_rows(features, features), linear_weight, linear_bias)
    by_row, rest = _split({"targets": labels, **hyper}, rows, labels, classes)
    call = _Call(loss, reduction, by_row, rest, anchors)
    grad = torch.is_grad_enabled()
    learns = grad and any(tensor.requires_grad for tensor in call.tensors())
    if reduction == "none" or learns or torch.compiler.is_compiling() or is_watched():
        result = call.of(F.linear(*parts))
        return result.reshape(rows + result.shape[1:]) if reduction == "none" else result
    needed = [grad and part is not None and part.requires_grad for part in parts]
    if any(needed):
        return _LinearLoss.apply(call, needed, *parts)
    with torch.no_grad():
        return _blockwise(call, needed, parts)[0]


def block_rows(rows: int, classes: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many rows of logits exist at a time, from the memory there is for them.

    On the CPU 2 MiB of logits per thread: they stay in its cache from the product to the loss and back. On a
    GPU 1/256 of its memory: every block costs launches, so few large ones. Never fewer than 256 rows, however
    many classes there are, since each block reads the whole weight.
    """
    if device.type == "cuda":
        size = torch.cuda.get_device_properties(device).total_memory // 256
    else:
        size = torch.get_num_threads() * 2**21
    return min(rows, max(256, size // max(1, classes * dtype.itemsize)))


@dataclass(frozen=True)
class _Call:
    """A loss with all its arguments but the logits."""

    loss: Callable[..., Tensor]
    reduction: str
    by_row: dict[str, Tensor]  # "targets" among them; of several anchors, one after another
    hyper: dict[str, Any]
    anchors: int = 1

    def tensors(self) -> list[Tensor]:
        return [value for value in (*self.by_row.values(), *self.hyper.values()) if isinstance(value, Tensor)]

    def of(self, logits: Tensor, part: slice | None = None) -> Tensor:
        if part is not None:
            part = slice(part.start * self.anchors, part.stop * self.anchors)
        by_row = {name: value if part is None else value[part] for name, value in self.by_row.items()}
        targets = by_row.pop("targets")
        if self.anchors > 1:
            logits = logits.reshape(-1, logits.shape[1] // self.anchors)
        return self.loss(logits, targets, reduction=self.reduction, **by_row, **self.hyper)

    def block(self, logits: Tensor, part: slice, share: Tensor | None, needed: bool) -> tuple[Tensor, Tensor]:
        """The loss of one block of rows, and its gradient if that is needed, both times `share`."""
        with torch.set_grad_enabled(needed):
            logits.requires_grad_(needed)
            try:
                value = self.of(logits, part)
            except ValueError as error:
                first = part.start * self.anchors
                error.add_note(f"linear_loss: this counts rows from row {first} of the input")
                raise
        if value.ndim:
            raise ValueError(
                f"loss returned shape {tuple(value.shape)} with reduction={self.reduction!r}; it must return "
                "a number, so that the values of several blocks can be added"
            )
        share = None if share is None else share.to(value.dtype)
        if value.requires_grad:
            _check_leaves(value, logits)
            (gradient,) = torch.autograd.grad(value, logits, share)
        else:  # a constant, such as the loss of a block without positives
            gradient = torch.zeros_like(logits) if needed else logits
        return value.detach() if share is None else value.detach() * share, gradient

    def shares(self, size: int, dtype: torch.dtype) -> Iterable[Tensor | None]:
        """The part that each block has in the result: for a mean, of the rows that count."""
        if self.reduction == "sum":
            return repeat(None)
        targets = self.by_row["targets"]
        if targets.is_floating_point():
            counted = torch.ones(len(targets), dtype=torch.bool, device=targets.device)
        else:
            counted = targets.long() != self.hyper.get("ignore_index", -100)
        counts = torch.stack([block.sum() for block in counted.split(size * self.anchors)]).to(dtype)
        return counts / counts.sum().clamp(min=1)


def _blockwise(call: _Call, needed: list[bool], parts: Parts) -> tuple[Tensor, list[Tensor | None]]:
    """The loss, and the gradients of those parts that need one, a block of rows at a time.

    The products are in-place and out= operations, which autocast leaves alone: its dtype is taken here, and
    the weight is converted once.
    """
    input, weight, bias = parts
    rows, classes = len(input), len(weight)
    dtype = _product_dtype(input)
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    wide = arithmetic_dtype(dtype)
    gradients = [
        torch.empty_like(input, dtype=wide if input.dtype == torch.float16 else None) if needed[0] else None,
        torch.zeros_like(weight, dtype=wide) if needed[1] else None,
        torch.zeros(classes, dtype=wide, device=input.device) if needed[2] else None,
    ]
    size = max(1, block_rows(rows, classes, dtype, input.device))
    buffer = torch.empty(min(size, rows), classes, dtype=dtype, device=input.device)
    total = torch.zeros((), dtype=torch.float64 if input.device.type == "cpu" else wide, device=input.device)
    for start, share in zip(range(0, max(1, rows), size), call.shares(size, wide)):  # no rows: an empty block
        part = slice(start, start + size)
        block = input[part].to(dtype)
        logits = buffer[: len(block)]
        if bias is None:
            torch.mm(block, weight.t(), out=logits)
        else:
            torch.addmm(bias, block, weight.t(), out=logits)
        seen = logits.float() if dtype == torch.float16 else logits
        value, gradient = call.block(seen, part, share, any(needed))
        # in place: a number kept of every block would split the memory that the next one reuses
        total += value
        if gradients[2] is not None:
            gradients[2] += gradient.sum(0, dtype=wide)
        scale = None
        if dtype == torch.float16 and rows:
            # The factor of a loss scaler comes later, with grad_output: small ones would be 0 by then.
            scale = 256 / torch.linalg.vector_norm(gradient, torch.inf).clamp(min=1e-30)
            gradient = (gradient * scale).to(dtype)
        if gradients[0] is not None:
            _add_product(gradients[0][part], gradient, weight, scale, beta=0)
        if gradients[1] is not None:
            _add_product(gradients[1], gradient.t(), block, scale)
    return total.to(value.dtype), gradients


def _add_product(total: Tensor, a: Tensor, b: Tensor, scale: Tensor | None, beta: int = 1) -> None:
    """total = beta total + a @ b / scale; what is half precision is added in the dtype of the total."""
    if a.dtype == total.dtype:
        total.addmm_(a, b, beta=beta)
        return
    if a.is_cuda:
        product = torch.mm(a, b, out_dtype=torch.float32)
    else:
        if a.dtype == torch.float16:  # whose largest number, 65504, a sum over rows can pass
            a, b = a.float(), b.float()
        product = torch.mm(a, b, out=a.new_empty(len(a), b.shape[1]))
    if scale is not None:
        product = product / scale
    if beta:
        total.add_(product)
    else:
        total.copy_(product)


class _LinearLoss(torch.autograd.Function):
    """Gradients computed with the value; differentiated again, the expression this stands for."""

    @staticmethod
    def forward(ctx: Any, call: _Call, needed: list[bool], *parts: Any) -> Tensor:
        value, gradients = _blockwise(call, needed, parts)
        device = parts[0].device.type
        ctx.call, ctx.needed = call, needed
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        # With the arguments of the loss, so that autograd refuses a backward after one was changed in place.
        ctx.save_for_backward(*parts, *gradients, *call.tensors())
        return value

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: a checkpoint unpacks once
        parts, gradients = saved[:3], saved[3:6]
        if not torch.is_grad_enabled():
            scaled = _scaled(gradients, grad_output)
            return None, None, *(g if g is None else g.to(part.dtype) for g, part in zip(scaled, parts))
        # create_graph: views, so that a part computed from another one is not differentiated through here.
        views: list[Any] = [None if part is None else part.view_as(part) for part in parts]
        with torch.autocast(*ctx.autocast):
            value = ctx.call.of(F.linear(*views))
        wanted = [view for view, needed in zip(views, ctx.needed) if needed]
        found = iter(torch.autograd.grad(value, wanted, grad_output.to(value.dtype), create_graph=True))
        return None, None, *(next(found) if needed else None for needed in ctx.needed)


def _scaled(gradients: Sequence[Tensor | None], factor: Tensor) -> list[Tensor | None]:
    """The gradients times a number; in place where nothing else uses them."""
    if is_batched_gradient(factor) or graph_is_kept():
        return [g if g is None else g * factor for g in gradients]
    if factor.device.type == "cpu" and factor.item() == 1:  # on a CPU a look is free
        return list(gradients)
    return [g if g is None else g.mul_(factor) for g in gradients]


def _product_dtype(values: Tensor) -> torch.dtype:
    """The dtype that `F.linear` takes the values in: under autocast not their own, but for float64."""
    device = values.device.type
    converted = values.dtype in (torch.float32, torch.float16, torch.bfloat16)
    on = converted and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else values.dtype


def _check_leaves(value: Tensor, logits: Tensor) -> None:
    """ValueError where the loss depends on a second tensor that requires grad: that would get none."""
    nodes, seen = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", logits)
        if leaf is not logits:
            raise ValueError(
                f"loss uses a tensor of shape {tuple(leaf.shape)} that requires grad and is not one of "
                "its arguments; pass it to linear_loss as a keyword, or detach it"
            )
        nodes += [following for following, _ in node.next_functions]


def _rows(features: Tensor, anchors: int) -> torch.Size:
    """The shape of what holds one value per row of logits."""
    return features.shape[:-1] if anchors == 1 else torch.Size((*features.shape[:-1], anchors))


def _is_list(values: object) -> bool:
    """Whether an argument is a list of tensors, one for each level."""
    return isinstance(values, (list, tuple)) and any(isinstance(value, Tensor) for value in values)


def _joined(input: Any, targets: Any, hyper: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Input, targets and other arguments; of a list of levels the rows of all as one."""
    if not _is_list(input):
        return input, targets, hyper
    joined: dict[str, Any] = {}
    for name, values in {"input": input, "targets": targets, **hyper}.items():
        several = _is_list(values)
        if not several and name not in ("input", "targets"):
            joined[name] = values
            continue
        if not several or len(values) != len(input):
            raise ValueError(
                f"input is a list of {len(input)} levels; {name} must be a list of as many tensors"
            )
        for number, (level, value) in enumerate(zip(input, values)):
            check_tensor(f"input[{number}]", level)
            check_tensor(f"{name}[{number}]", value)
            if value.shape[: level.ndim - 1] != level.shape[:-1]:
                raise ValueError(
                    f"{name}[{number}] has shape {tuple(value.shape)}; for input[{number}] of shape "
                    f"{tuple(level.shape)} it must begin with {tuple(level.shape[:-1])}"
                )
        joined[name] = torch.cat([_as_rows(value, level) for value, level in zip(values, input)])
    return joined.pop("input"), joined.pop("targets"), joined


def _as_rows(value: Tensor, level: Tensor) -> Tensor:
    """A tensor whose shape begins with the rows of a level, with these in one dimension."""
    dims = level.ndim - 1
    return value.reshape(level.shape[:-1].numel(), *value.shape[dims:])


def _split(
    hyper: dict[str, Any], rows: torch.Size, targets: Tensor, classes: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The arguments that hold something for every row, flattened to it, and the others."""
    by_row, rest = {}, {}
    soft = targets.is_floating_point()
    for name, value in hyper.items():
        if not isinstance(value, Tensor) or not value.ndim or name == "alpha":
            rest[name] = value
        elif name == "pos_weight" or (name == "weight" and (soft or value.shape != rows)):
            broadcastable(name, value, torch.Size((*rows, classes)))
            if value.shape[:-1].numel() == 1:
                # Two dimensions: a block of as many rows as classes does not take it for one per row.
                rest[name] = value.reshape(1, value.shape[-1])
            else:
                by_row[name] = value.expand(*rows, value.shape[-1]).reshape(rows.numel(), value.shape[-1])
        elif value.shape[: len(rows)] == rows:
            by_row[name] = value.reshape(rows.numel(), *value.shape[len(rows) :])
        else:
            rest[name] = value
    return by_row, rest


def _check(input: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, anchors: int) -> None:
    """ValueError unless the shapes, dtypes and devices of the tensors go together."""
    tensors = {"input": input, "linear_weight": weight, "targets": targets}
    if bias is not None:
        tensors["linear_bias"] = bias
    for name, value in tensors.items():
        check_tensor(name, value)
        if value.device != input.device:
            raise ValueError(f"{name} is on {value.device}, input on {input.device}; move one of them")
    if not input.ndim or not input.is_floating_point():
        raise ValueError(
            f"input has shape {tuple(input.shape)} and {input.dtype}; it must be (..., K), floating"
        )
    if weight.ndim != 2 or weight.shape[1] != input.shape[-1]:
        raise ValueError(
            f"linear_weight has shape {tuple(weight.shape)}; for input {tuple(input.shape)} it must be "
            f"(C, {input.shape[-1]}) (of a 1×1 convolution: weight.flatten(1), and features.movedim(1, -1))"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear_bias has shape {tuple(bias.shape)}; it must be ({len(weight)},)")
    for name in ("linear_weight", "linear_bias"):
        value = tensors.get(name, input)
        if _product_dtype(value) != _product_dtype(input):
            raise ValueError(f"{name} is {value.dtype}, input {input.dtype}; convert one of them")
    if not isinstance(anchors, int) or anchors < 1 or len(weight) % anchors:
        raise ValueError(
            f"anchors is {anchors!r}; it must be a whole number of which the {len(weight)} rows of "
            "linear_weight are a multiple"
        )
    rows = tuple(_rows(input, anchors))
    if targets.shape[: len(rows)] != rows:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}; for input {tuple(input.shape)} they must be "
            f"class indices {rows} or soft labels {(*rows, len(weight) // anchors)}"
        )


class LinearLoss(LossModule):
    """Module of `linear_loss`: a head with its loss; the default reduction is "mean".

    A convolution takes features `(B, K, H, W)`; its targets are `(B, H, W)` or, soft, `(B, H, W, C)`; with
    `anchors=A` `(B, H, W, A)` or `(B, H, W, A, C)`. Features of several levels are a list, as are targets.

    Args:
        linear: the head, an `nn.Linear` or a 1×1 `nn.Conv2d`; `module.linear(features)` are its logits, as
            inference needs them. Its parameters are read, so hooks on it do not run.
        loss: a classification loss, as for `linear_loss`.
        reduction: "none", "sum" or "mean".
        **hyper: arguments of `loss`.

    Raises:
        ValueError: a head that is neither; all that `linear_loss` raises.
    """

    def __init__(
        self,
        linear: nn.Linear | nn.Conv2d,
        loss: Callable[..., Tensor],
        reduction: str = "mean",
        **hyper: Any,
    ) -> None:
        super().__init__()
        pointwise = isinstance(linear, nn.Conv2d) and (
            (linear.kernel_size, linear.stride, linear.groups) == ((1, 1), (1, 1), 1)
            and linear.padding in ((0, 0), "valid", "same")
        )
        if not pointwise and not isinstance(linear, nn.Linear):
            raise ValueError(f"linear is {linear}; it must be an nn.Linear or a plain 1×1 nn.Conv2d")
        self.linear = linear
        self.loss = loss
        self.keep(reduction=reduction, **hyper)

    def forward(
        self, input: Tensor | Sequence[Tensor], targets: Tensor | Sequence[Tensor], **by_row: Any
    ) -> Tensor:
        """The loss of features; `by_row` are arguments of this call, such as weight and quality."""
        weight = self.linear.weight
        if isinstance(self.linear, nn.Conv2d):
            several = isinstance(input, (list, tuple))
            levels: Any = input if several else (input,)
            moved = [level.movedim(-3, -1) for level in levels]
            input, weight = moved if several else moved[0], weight.flatten(1)
        return linear_loss(
            self.loss, input, weight, targets, linear_bias=self.linear.bias, **self.kept(), **by_row
        )

    def extra_repr(self) -> str:
        """The loss and its hyperparameters."""
        return f"{getattr(self.loss, '__name__', self.loss)}, {super().extra_repr()}"
