"""Where to compute."""

import torch

from detloss.lab import ranks

KINDS = ("cpu", "cuda", "mps", "xpu")


def pick_device(name: str) -> torch.device:
    """The device that `name` means; `auto` is the CUDA GPU where there is one.

    Of several processes on one machine, `auto` and `cuda` give each a GPU of its own.

    Raises:
        ValueError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in KINDS:
            raise RuntimeError
    except RuntimeError:
        raise ValueError(f"device is {name!r}; it may be auto, {', '.join(KINDS)} or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError):
            raise ValueError(
                f"device is {name!r}, but this machine or this build of PyTorch has none; use cpu or auto"
            ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {name!r}, but PyTorch sees no GPU here; use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ValueError(f"device is {name!r}; the GPUs here are cuda:0 to cuda:{last}")
    if device.type != "cuda" or ranks.world() == 1:
        return device
    if device.index is not None:
        raise ValueError(f"device is {name!r}; with several processes it may be auto, cpu or cuda")
    device = torch.device("cuda", ranks.local_rank())
    if device.index >= torch.cuda.device_count():
        raise ValueError(
            f"device is {name!r}: {torch.cuda.device_count()} GPUs are too few for a process each; start as "
            "many as there are GPUs (--nproc-per-node gpu), or give cpu"
        )
    torch.cuda.set_device(device)
    return device
