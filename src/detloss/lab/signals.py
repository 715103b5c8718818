"""Signals that ask a process to end: Ctrl-C, and what `kill`, a closed terminal or a cluster's queue send.

Each becomes a `Stopped`, so that what is at work can save before it ends. Where something must be whole it
waits (`held`).
"""

import _thread
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
KINDS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""All that ask a process to end and can be caught; SIGKILL cannot."""
SAME = 1.0
"""A signal so many seconds after the first is the same one: `timeout` and torchrun send theirs twice."""


class Stopped(KeyboardInterrupt):
    """A signal asks to end.

    Attributes:
        number: of the signal.
        status: the exit status that says so, 130 for Ctrl-C.
    """

    def __init__(self, number: int = signal.SIGINT, said: str = "") -> None:
        how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        super().__init__(said or how)
        self.number, self.status = number, 128 + number


def and_then(error: KeyboardInterrupt, words: str = "") -> Stopped:
    """The same interruption, with more words of what it leaves."""
    number = error.number if isinstance(error, Stopped) else signal.SIGINT
    return Stopped(number, f"{error if str(error) else 'interrupted'}{words}")


_held = 0
"""How many blocks of `held` the main thread is in."""
_waiting: int | None = None
"""The signal that came meanwhile."""
_first: float | None = None
"""When the first signal came."""
_came: int | None = None
"""Which it was."""
_patient = False
"""Whether one that comes again changes nothing."""


def _arrived(number: int, frame: FrameType | None) -> None:
    global _waiting, _first, _came
    now = time.monotonic()
    if _first is not None:
        if _patient or now - _first < SAME:
            return
        raise KeyboardInterrupt  # who asks again does not want to wait
    _first, _came = now, number
    if not _held:
        raise Stopped(number)
    _waiting = number


def catch(ignored: tuple[int, ...] = ()) -> None:
    """From now on signals raise `Stopped` in the main thread; some are ignored.

    What is ignored already, as nohup does it, stays so.
    """
    global _waiting, _first, _came, _patient
    _waiting, _first, _came, _patient = None, None, None, False
    for number in KINDS:
        if number in ignored:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _arrived)


@contextmanager
def restored() -> Iterator[None]:
    """After the block signals are handled as before it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in KINDS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def caught(ignored: tuple[int, ...] = ()) -> Iterator[None]:
    """As `catch`, within the block."""
    with restored():
        if threading.current_thread() is threading.main_thread():
            catch(ignored)
        yield


@contextmanager
def blocked() -> Iterator[None]:
    """A block in which no signal arrives, nor in the processes that are started in it."""
    with held():  # a mask is of this thread alone, and another may take the signal
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            yield
            return
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, KINDS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def held() -> Iterator[None]:
    """A block that a signal does not cut in two: it is obeyed at the end; when it comes again, at once."""
    global _held, _waiting
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        number = None if _held else _waiting
        if number is not None:
            _waiting = None
    if number is not None:
        raise Stopped(number)


def came() -> Stopped | None:
    """The signal that has come, for what it was turned into on its way: C code may raise another error."""
    return None if _came is None else Stopped(_came)


def only_terminate() -> None:
    """In a process of ours: only SIGTERM stops it, once.

    A terminal and a queue send signals to all processes; the parent obeys, and ends those that take too long.
    """
    global _patient
    catch(tuple(number for number in KINDS if number != signal.SIGTERM))
    _patient = True
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, KINDS)


def stop() -> None:
    """Lets another thread stop the main thread, as SIGTERM does."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGTERM)
