"""A signal becomes a `Stopped`, waits for what must be whole, and does not wait twice."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from detloss.lab import signals
from detloss.lab.signals import KINDS, Stopped, and_then, caught, held


@pytest.fixture(autouse=True)
def caught_here():
    with caught():
        yield


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    for _ in range(100):  # Python obeys between two of its own steps
        pass


@pytest.mark.parametrize(("number", "status", "words"), [
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGTERM, 143, "ended by SIGTERM"),
    (signal.SIGHUP, 129, "ended by SIGHUP"),
    (signal.SIGQUIT, 131, "ended by SIGQUIT"),
])  # fmt: skip
def test_each_kind(number, status, words):
    assert number in KINDS
    with pytest.raises(Stopped, match=f"^{words}$") as caught:
        send(number)
    assert (caught.value.number, caught.value.status) == (number, status)
    more = and_then(caught.value, ", saved at step 3")
    assert (str(more), more.status) == (f"{words}, saved at step 3", status)


def test_what_is_held_is_not_cut_in_two():
    done = []

    def work() -> None:
        with held():
            with held():
                send(signal.SIGTERM)
                done.append(1)
            done.append(2)  # the inner end is not yet the end
        done.append(3)

    with pytest.raises(Stopped, match="SIGTERM"):
        work()
    assert done == [1, 2]


def test_an_error_within_is_not_replaced():
    @held()
    def work() -> None:
        send(signal.SIGINT)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()
    with held():  # and the signal is not left over
        pass


@held()
def twice() -> None:
    send(signal.SIGINT)
    send(signal.SIGINT)


def test_the_same_signal_comes_twice_and_counts_once():
    with pytest.raises(Stopped) as caught:
        twice()
    assert caught.value.status == 130
    send(signal.SIGINT)  # also while what it asked for is done


def test_who_asks_again_later_does_not_wait(monkeypatch):
    monkeypatch.setattr(signals, "SAME", 0.0)
    with pytest.raises(KeyboardInterrupt) as caught:
        twice()
    assert type(caught.value) is KeyboardInterrupt
    more = and_then(caught.value, "; what was saved is kept")
    assert (str(more), more.status) == ("interrupted; what was saved is kept", 130)


def test_what_came_is_known_where_it_was_turned_into_another_error():
    assert signals.came() is None
    with pytest.raises(RuntimeError, match="of C code"):
        turned()
    assert str(signals.came()) == "ended by SIGHUP"


def turned() -> None:
    try:
        send(signal.SIGHUP)
    except KeyboardInterrupt as error:
        raise RuntimeError("of C code") from error


def test_a_process_of_ours_obeys_sigterm_once(monkeypatch):
    monkeypatch.setattr(signals, "SAME", 0.0)
    signals.only_terminate()
    for number in KINDS:
        if number != signal.SIGTERM:
            send(number)

    @held()
    def work() -> None:
        send(signal.SIGTERM)
        send(signal.SIGTERM)

    with pytest.raises(Stopped, match="SIGTERM"):
        work()


def test_what_was_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does it
    signals.catch()
    send(signal.SIGHUP)


def test_handlers_are_as_before_afterwards():
    before = {number: signal.getsignal(number) for number in KINDS}
    with caught(ignored=KINDS):
        assert all(signal.getsignal(number) == signal.SIG_IGN for number in KINDS)
        send(signal.SIGTERM)
    assert {number: signal.getsignal(number) for number in KINDS} == before


def test_another_thread_leaves_them_alone():
    def work() -> None:
        with caught(), held():
            found.append(1)

    found: list[int] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [1]


def test_another_thread_stops_the_main_one_even_where_it_sleeps():
    threading.Timer(0.2, signals.stop).start()
    with pytest.raises(Stopped, match="SIGTERM"):
        time.sleep(60)


def test_blocked_signals_come_afterwards_and_not_to_a_child():
    child = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    told = []

    @signals.blocked()
    def work() -> None:
        send(signal.SIGINT)
        told.append(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)

    with pytest.raises(Stopped):
        work()
    assert told == ["True\n"]
