"""All probes of a running loss, in the order in which they are made."""

from collections.abc import Callable

from detloss.doctor.findings import Finding
from detloss.doctor.match import Match
from detloss.doctor.probes.cost import memory, python_loop
from detloss.doctor.probes.devices import device_hardcoded
from detloss.doctor.probes.direction import direction
from detloss.doctor.probes.gradients import not_differentiable, not_finite_gradient, wrong_gradient
from detloss.doctor.probes.shapes import (
    breaks_empty,
    breaks_half,
    breaks_noncontiguous,
    ignored,
    silent_broadcast,
)
from detloss.doctor.probes.state import dtype_hardcoded, mutates_input, reduction
from detloss.doctor.probes.values import (
    alpha_inverted,
    not_finite_value,
    similarity_not_loss,
    soft_target_minimiser,
)
from detloss.doctor.subject import Subject

Probe = Callable[[Subject, Match | None], list[Finding]]

PROBES: dict[str, Probe] = {
    "alpha": alpha_inverted,
    "right and wrong predictions": similarity_not_loss,
    "values at the extremes": not_finite_value,
    "whether there is a gradient": not_differentiable,
    "gradient against the slope of the value": wrong_gradient,
    "gradients at the extremes": not_finite_gradient,
    "where wrong predictions are pushed": direction,
    "soft targets": soft_target_minimiser,
    "reduction": reduction,
    "arguments after the call": mutates_input,
    "shapes that do not fit": silent_broadcast,
    "empty batches and one class": breaks_empty,
    "targets to ignore": ignored,
    "transposed tensors": breaks_noncontiguous,
    "half precision": breaks_half,
    "dtypes": dtype_hardcoded,
    "devices": device_hardcoded,
    "loops": python_loop,
    "memory": memory,
}
"""Each by what it looks at, in a person's words."""
