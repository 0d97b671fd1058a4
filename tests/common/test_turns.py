"""One thread at a time has a model, and nobody waits for ever."""

import threading

import pytest
from torch import nn

from camlucida import ModelError
from camlucida.common.turns import has_any, turn

TIMEOUT = 20


def in_thread(work):
    errors = []

    def run():
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, errors


def test_turns_nest_and_end():
    model = nn.Sequential(nn.ReLU(), nn.ReLU())
    assert not has_any()
    with turn(model), turn(model), turn(model[0]):
        assert has_any()
    assert not has_any()


@pytest.mark.parametrize("other", ["same", "part", "wrapped"])
def test_another_thread_waits_for_a_shared_module(other):
    model = nn.Sequential(nn.ReLU(), nn.ReLU())
    wanted = {"same": model, "part": model[1], "wrapped": nn.Sequential(model[0])}[other]
    order, entered = [], threading.Event()

    def work():
        entered.set()
        with turn(wanted):
            order.append("second")

    with turn(model):
        thread, errors = in_thread(work)
        assert entered.wait(TIMEOUT)
        thread.join(0.1)
        order.append("first")
    thread.join(TIMEOUT)
    assert order == ["first", "second"]
    assert not errors


def test_models_without_a_common_module_do_not_wait():
    done = threading.Event()

    def work():
        with turn(nn.ReLU()):
            done.set()

    with turn(nn.ReLU()):
        in_thread(work)
        assert done.wait(TIMEOUT)


def test_two_threads_that_would_wait_for_ever_are_told():
    a, b = nn.ReLU(), nn.Tanh()
    has_b, go = threading.Event(), threading.Event()

    def work():
        with turn(b):
            has_b.set()
            assert go.wait(TIMEOUT)
            with turn(a):
                pass

    with turn(a):
        thread, errors = in_thread(work)
        assert has_b.wait(TIMEOUT)
        go.set()
        # Either this thread or the other is told, whoever comes second.
        try:
            with turn(b):
                pass
        except ModelError as error:
            errors.append(error)
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    (error,) = errors
    assert isinstance(error, ModelError)
    assert "for ever" in str(error)


def test_a_turn_ends_with_an_exception():
    model = nn.ReLU()
    with pytest.raises(ZeroDivisionError), turn(model):
        raise ZeroDivisionError
    thread, errors = in_thread(lambda: turn(model).__enter__())
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert not errors
