"""Probe of devices: whether tensors that a loss makes follow its arguments to another one."""

import warnings

from torch import nn

from detloss.doctor.elements import attempt
from detloss.doctor.findings import Finding
from detloss.doctor.match import Match
from detloss.doctor.probes.modes import Elsewhere, TwoDevices
from detloss.doctor.samples import batch
from detloss.doctor.subject import Subject

PLAYED = ("meta", "xla")  # torch asks for a driver where a tensor shall be made on another


def holds_tensors(subject: Subject) -> bool:
    """Whether it is a Module with buffers or parameters, which `.to` moves to other devices and dtypes."""
    own = getattr(subject.raw, "object", subject.raw)
    built = (own, *getattr(subject.raw, "built", {}).values())
    modules = [module for module in built if isinstance(module, nn.Module)]
    return any(True for module in modules for _ in (*module.buffers(), *module.parameters()))


def device_hardcoded(subject: Subject, match: Match | None) -> list[Finding]:
    """Tensors of its own stay on the CPU when its arguments are elsewhere; seen without another device.

    Not asked of a Module with buffers or parameters, which move with `.to(device)`, and not where the doctor
    itself made a tensor on the CPU as an argument.
    """
    if getattr(subject.raw, "on_cpu", False):  # known already: it asks for a GPU by name
        return []
    if holds_tensors(subject):
        return []
    if any("ones" in text for text in subject.chosen.values()):
        return []
    x, t = batch(subject, match)
    if attempt(subject.call, x, t).value is None:
        return []
    for device in PLAYED:
        mode = TwoDevices(device)
        failed = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with mode:
                    subject.call(Elsewhere(x, device), Elsewhere(t, device))
            except Exception:
                failed = True
        if mode.mixed:
            return [
                Finding(
                    "device-hardcoded",
                    "warning",
                    "a tensor of its own stays on the CPU when its arguments are on another device",
                    f"arguments on another device: {mode.mixed} gets one of them and a tensor on the CPU",
                    "make it with device=inputs.device, or register_buffer in a Module",
                )
            ]
        if not failed:
            break
    return []
