"""Probes of the operations that a loss asks torch for: loops, memory, devices, casts, each with its line."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from detloss.lab.doctor.answers import attempt, batch
from detloss.lab.doctor.catalogue import Found, found
from detloss.lab.doctor.findings import Finding
from detloss.lab.doctor.forms import ONE_BY_ONE, Subject
from detloss.lab.doctor.known import Match
from detloss.lab.doctor.probe_effects import holds_tensors
from detloss.lab.doctor.running import running_line
from detloss.lab.memory import kept_by_hooks

FEW, MANY, ROWS = 4, 64, 512
MOST = 12.0  # times the logits: an eager focal loss, torchvision's or this package's, keeps 8 to 10
MOST_OF_BOXES = 40.0  # times the boxes: more is N × N
FIXED = (torch.float16, torch.bfloat16, torch.float64)
PLAYED = ("meta", "xla")  # torch asks for a driver where a tensor is made on another device


class _Watch(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled under it; the default imports all of torch._dynamo, which takes seconds."""
        return False


class Operations(_Watch):
    """Counts the operations by the line that asks for them, and notes casts of what is in its `places`."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()
        self.casts: list[tuple[str, torch.dtype, str]] = []
        self.places: dict[int, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts one."""
        line = running_line()
        self.lines[line] += 1
        if func is torch.ops.aten._to_copy.default and kwargs and kwargs.get("dtype") is not None:
            place = self.places.get(args[0].data_ptr(), "")
            self.casts.append((place, kwargs["dtype"], line))
        return func(*args, **(kwargs or {}))


def _watched(subject: Subject, x: Tensor, t: Tensor) -> Operations | None:
    """What the loss asks for; None where it raises."""
    watch = Operations()

    def watched(x: Tensor, t: Tensor) -> Tensor:
        watch.places = {t.data_ptr(): "targets", x.data_ptr(): "predictions"}
        with watch:
            return subject(x, t)

    return None if attempt(watched, x, t).error is not None else watch


def loops(subject: Subject, match: Match | None) -> Found:
    """The number of operations grows with positives, or with rows: a loop in Python, with a kernel a turn."""
    if subject.form.layout in ONE_BY_ONE:
        return  # the doctor itself goes through the pairs
    what = "pairs of boxes" if subject.kind == "box" else "rows"
    tries = [(what, batch(subject, FEW), batch(subject, MANY))]
    if subject.kind == "classification":
        x, _ = batch(subject, 2 * MANY)
        places = torch.arange(2 * MANY)
        each = torch.zeros_like(x).index_put((places, places % x.shape[1]), torch.tensor(1.0))
        few, many = (each * (places < count)[:, None] for count in (FEW, MANY))
        tries.insert(0, ("positives", (x, few), (x, many)))
    for what, small, large in tries:
        before, after = _watched(subject, *small), _watched(subject, *large)
        if before is None or after is None or after.lines.total() - before.lines.total() < MANY - FEW:
            continue
        line = (after.lines - before.lines).most_common(1)[0][0]
        seen = f"{line}; {before.lines.total()} operations for {FEW} {what}, "
        yield found("loop", f"{seen}{after.lines.total():,} for {MANY}", what=what)
        return


def casts(subject: Subject, match: Match | None) -> Found:
    """Targets that are cast to integers, predictions that are cast to a fixed dtype."""
    watch = _watched(subject, *batch(subject))
    dense = subject.kind == "classification" and subject.form.targets == "dense"
    cut, fixed = list[Finding](), list[Finding]()
    for place, dtype, line in watch.casts if watch is not None else ():
        whole = not dtype.is_floating_point and dtype != torch.bool
        if place == "targets" and dense and whole:
            cut.append(found("labels cut", line))
        elif place == "predictions" and dtype in FIXED:
            fixed.append(found("cast", line, what=str(dtype).removeprefix("torch.")))
    yield from (cut + fixed)[:1]


def memory_kept(subject: Subject) -> float | None:
    """What autograd keeps for the backward pass, in units of the predictions; None where it does not run."""
    x, t = batch(subject, ROWS)
    if attempt(subject, x, t, gradient=True).value is None:
        return None
    predictions = x.clone().requires_grad_().clone()
    return kept_by_hooks(lambda: subject(predictions, t), (predictions, t)) / x.nbytes


def memory(subject: Subject, match: Match | None) -> Found:
    """More than others keep."""
    known = match.convention.get("memory") if match is not None else None
    kept = memory_kept(subject) if known is None else known
    if kept is not None and kept > (MOST_OF_BOXES if subject.kind == "box" else MOST):
        x, _ = batch(subject, ROWS)
        seen = f"{x.shape[0]} × {x.shape[1]} predictions of {x.nbytes / 1024:.0f} KiB in float32: "
        yield found("memory kept", f"{seen}{kept * x.nbytes / 1024:.0f} KiB kept, without them", kept=kept)


class Elsewhere(Tensor):
    """A tensor that says it is on another device, and holds its numbers here; for `TwoDevices` only."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor, device: str) -> "Elsewhere":
        """A tensor of the same size, dtype and strides."""
        layout: Any = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = Tensor._make_wrapper_subclass(cls, held.shape, **layout, device=torch.device(device))
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Refuses: `TwoDevices` is not on."""
        raise RuntimeError(f"{func} outside of TwoDevices")


# Operations that tensors on the CPU may go into beside others: copies, and indices.
_COPIES, _INDICES = ("copy_", "_to_copy"), ("index.Tensor", "index_put", "_index_put_impl_")


class TwoDevices(_Watch):
    """Plays a second device, and notes the first operation where tensors of both meet, and its line.

    A number as a 0-dim tensor on the CPU may meet any device, as torch has it.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.mixed = ""

    def _as_ours(self, value: Tensor) -> Tensor:
        """What torch itself made on the played device, such as torch.tensor(..., device=x.device), has no
        numbers.
        """
        if isinstance(value, Elsewhere) or value.device.type != self.device:
            return value
        return Elsewhere(torch.ones(value.shape, dtype=value.dtype), self.device)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation here, its result where a device would have it."""
        args, kwargs = tree_map_only(Tensor, self._as_ours, (args, dict(kwargs or {})))
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        there = [value for value in given if isinstance(value, Elsewhere)]
        here = [value for value in given if not isinstance(value, Elsewhere) and value.ndim]
        name = str(func).removeprefix("aten.")
        indexing = name.startswith(_INDICES) and isinstance(args[0], Elsewhere)
        if there and here and not self.mixed and not name.startswith(_COPIES) and not indexing:
            self.mixed = f"{running_line()}; {name.partition('.')[0]}"
        device = kwargs.get("device")
        goes = bool(there) if device is None else torch.device(device).type == self.device
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = tree_map_only(Elsewhere, lambda value: value.held, (args, kwargs))
        result = func(*args, **kwargs)
        for value in there:
            if result is value.held:  # in place
                return value
        return tree_map_only(Tensor, lambda value: Elsewhere(value, self.device), result) if goes else result


def devices(subject: Subject, match: Match | None) -> Found:
    """Tensors of its own stay on the CPU when its arguments are elsewhere; seen without another device.

    Not asked of a Module with buffers or parameters, which move with `.to(device)`, and not where the
    doctor itself made a tensor on the CPU as an argument, or where it asks for a GPU by name.
    """
    x, t = batch(subject)
    given = (*subject.loaded.given.values(), *subject.loaded.given_to_forward.values())
    made = any(isinstance(guess.make(x, t), Tensor) for guess in given)
    asks = any(one.code == "device-hardcoded" for one in subject.loaded.names.findings)
    if asks or holds_tensors(subject) or made or attempt(subject, x, t).value is None:
        return
    for device in PLAYED:
        mode = TwoDevices(device)

        def there(x: Tensor, t: Tensor, mode: TwoDevices = mode) -> Tensor:
            with mode:
                subject(Elsewhere(x, mode.device), Elsewhere(t, mode.device))
            return x

        error = attempt(there, x, t).error
        if mode.mixed:
            yield found("stays on cpu", f"{mode.mixed} gets one of its arguments and a tensor on the CPU")
        if mode.mixed or error is None:
            return
