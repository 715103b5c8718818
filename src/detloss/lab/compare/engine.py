"""Where the runs of a comparison are made."""

import os
from functools import partial
from types import ModuleType

from detloss.lab.compare.config import CompareConfig
from detloss.lab.devices import pick_device
from detloss.lab.engines import Engine, local

WHERE = ("workers", "devices", "threads", "engine", "address")
"""What of a configuration says only where its runs are made."""


def workers_and_threads(config: CompareConfig) -> tuple[int, int]:
    """Runs at a time (with Ray 0 is as many as there is room for) and PyTorch threads of each."""
    if config.engine == "ray":
        return config.workers, config.threads or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    one_gpu = not config.devices and pick_device(config.device).type == "cuda"
    workers = len(config.devices) or config.workers or (1 if one_gpu else min(cores, 8))
    return workers, config.threads or max(1, cores // workers)


def engine(config: CompareConfig) -> Engine:
    """The engine that a comparison asks for."""
    workers, threads = workers_and_threads(config)
    if config.engine == "ray":
        ray_tasks = _ray(config)
        gpus = config.device == "cuda" or (config.device == "auto" and ray_tasks.has_gpus())
        return partial(ray_tasks.run_jobs, gpus=int(gpus), threads=threads, at_once=workers)
    return partial(local.run_jobs, devices=config.devices or [""] * workers, threads=threads)


def check_engine(config: CompareConfig) -> None:
    """ValueError where runs could not be made: no such device, no such cluster."""
    if config.engine == "ray":
        _ray(config)
    else:
        for device in config.devices or (config.device,):
            pick_device(device)


def _ray(config: CompareConfig) -> ModuleType:
    """Ray's engine, connected."""
    try:
        from detloss.lab.engines import ray_tasks
    except ImportError as error:
        raise ValueError(f"engine ray needs Ray ({error}): its extra is detloss[ray]") from error
    ray_tasks.connect(config.address)
    return ray_tasks
