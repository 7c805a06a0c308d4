import itertools
import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import loop
from tempseg_jax.train_state import Player, TrainState


class Diverged(Exception):
    pass


def make_state(step=0, value=0.0):
    params = {"w": jnp.float32(value)}
    return TrainState(jnp.int32(step), Player(params, {}, {}, None), None)


class Run:
    """A loop over a step that counts, and everything that it asked for."""

    def __init__(self, **callbacks):
        self.events, self.logged, self.first_seen = [], [], None
        self.loss_of = lambda number: 1.0
        self.parameter_of = float
        self.during_step = lambda number: None
        every = dict(log_every=100, evaluate_every=100, save_every=100) | callbacks
        self.callbacks = loop.Callbacks(
            log=lambda number, means: self.logged.append((number, means)),
            evaluate=lambda state: self.events.append(("evaluate", int(state.step))),
            save=lambda state: self.events.append(("save", int(state.step))),
            diverged=lambda number, reason: Diverged(f"step {number}: {reason}"),
            **every,
        )

    def step(self, state, batch):
        number = int(state.step) + 1
        self.first_seen = self.first_seen or int(batch["image"][0, 0, 0, 0])
        self.during_step(number)
        moved = make_state(number, self.parameter_of(number))
        return moved, {"loss": jnp.float32(self.loss_of(number)), "x": number}

    def train(self, *, first_step=0, last_step):
        images = (
            {
                "image": np.full((4, 2, 2, 3), number, np.uint8),
                "label": np.zeros((4, 2, 2), np.uint8),
            }
            for number in itertools.count(first_step + 1)
        )
        state, self.interrupted = loop.train(
            make_state(first_step),
            images,
            step=self.step,
            place=lambda batch: batch,
            first_step=first_step,
            last_step=last_step,
            callbacks=self.callbacks,
        )
        return state


def test_the_last_step_is_evaluated_and_the_others_as_often_as_asked():
    run = Run(evaluate_every=4, save_every=3)
    state = run.train(last_step=10)
    assert int(state.step) == 10
    assert run.events == [
        ("save", 3),
        ("evaluate", 4),
        ("save", 6),
        ("evaluate", 8),
        ("save", 9),
        ("evaluate", 10),
    ]


def test_a_later_start_takes_the_steps_that_are_left_at_the_same_numbers():
    run = Run(evaluate_every=4, save_every=3)
    run.train(first_step=6, last_step=10)
    assert run.events == [("evaluate", 8), ("save", 9), ("evaluate", 10)]
    assert run.first_seen == 7


def test_nothing_is_done_where_no_step_is_left():
    run = Run()
    state = run.train(first_step=10, last_step=10)
    assert int(state.step) == 10
    assert run.events == run.logged == []


def test_every_step_is_in_the_mean_of_exactly_one_line():
    run = Run(log_every=4, save_every=6)
    run.train(last_step=10)
    means = [(number, means["x"]) for number, means in run.logged]
    # Also at a save: a start from there would not see steps 5 and 6 again.
    assert means == [(4, 2.5), (6, 5.5), (8, 7.5), (10, 9.5)]


def test_a_line_is_written_while_later_steps_are_queued():
    run = Run(log_every=4, save_every=100)
    taken, ahead = [], []
    run.during_step = taken.append

    def log(number, means):
        ahead.append((number, taken[-1] - number))

    run.callbacks = run.callbacks._replace(log=log)
    run.train(last_step=10)
    assert ahead == [(4, loop.IN_FLIGHT), (8, 2), (10, 0)]


def test_the_lines_tell_speed_and_the_wait_for_data():
    run = Run()
    run.train(last_step=5)
    ((_, means),) = run.logged
    assert 0 <= means["data_wait"] <= 1
    np.testing.assert_allclose(means["images_per_s"], 4 * means["steps_per_s"])


def test_speed_is_of_the_steps_in_a_line_without_the_compilation(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    run = Run(log_every=4)

    def take(number):
        clock[0] += 100.0 if number == 1 else 1.0

    run.during_step = take
    run.train(last_step=8)
    # Lines are written when their last step is read: after steps 7 and 8.
    assert [means["steps_per_s"] for _, means in run.logged] == [4 / 6, 4 / 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("number", [1, 5, 10])
def test_a_loss_that_is_not_finite_stops_and_names_its_step(number, value):
    run = Run(evaluate_every=10, save_every=5)
    run.loss_of = lambda n: value if n >= number else 1.0
    taken = []
    run.during_step = taken.append
    with pytest.raises(Diverged, match=f"step {number}: the loss is not finite.*loss"):
        run.train(last_step=10)
    assert all(step < number for _, step in run.events)
    assert taken[-1] <= number + loop.IN_FLIGHT


@pytest.mark.parametrize("every", ["save_every", "evaluate_every"])
def test_parameters_that_are_not_finite_are_never_saved(every):
    # The loss of step 3 is of the parameters before it.
    run = Run(**{every: 3})
    run.parameter_of = lambda n: float("nan") if n == 3 else 1.0
    with pytest.raises(Diverged, match="step 3: the loss was finite"):
        run.train(last_step=10)
    assert run.events == []


@pytest.fixture
def ctrl_c():
    """SIGINT as in a terminal; what runs in the background may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_returns(sent):
    run = Run(log_every=1)

    def terminate(number):
        if number == 4:
            os.kill(os.getpid(), sent)

    run.during_step = terminate
    before = signal.getsignal(sent)
    state = run.train(last_step=10)
    assert int(state.step) == 4
    assert run.events == [("save", 4)] and run.interrupted
    assert [number for number, _ in run.logged] == [1, 2, 3, 4]
    assert signal.getsignal(sent) is before


def test_a_signal_during_the_last_evaluation_is_not_lost():
    run = Run()
    run.train(last_step=2)
    assert not run.interrupted

    def terminated(state):
        os.kill(os.getpid(), signal.SIGTERM)

    run.callbacks = run.callbacks._replace(evaluate=terminated)
    run.train(last_step=2)
    assert run.interrupted


def test_without_evaluation_the_last_step_is_saved():
    run = Run(evaluate_every=0)
    run.train(last_step=3)
    assert run.events == [("save", 3)]


def test_an_ignored_signal_stays_ignored():
    run = Run()
    run.during_step = lambda number: os.kill(os.getpid(), signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run.train(last_step=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.events == [("evaluate", 2)] and not run.interrupted


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_ends_at_once():
    run = Run()

    def interrupt_twice(number):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    run.during_step = interrupt_twice
    with pytest.raises(KeyboardInterrupt):
        run.train(last_step=10)
    assert run.events == []


def test_sigterm_during_an_evaluation_stops_after_the_next_step():
    run = Run(evaluate_every=4)
    evaluate = run.callbacks.evaluate

    def terminated(state):
        evaluate(state)
        os.kill(os.getpid(), signal.SIGTERM)

    run.callbacks = run.callbacks._replace(evaluate=terminated)
    run.train(last_step=10)
    assert run.events == [("evaluate", 4), ("save", 5)]


def test_the_signal_handler_is_put_back_after_an_error():
    run = Run()
    run.loss_of = lambda n: float("nan")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Diverged):
        run.train(last_step=3)
    assert signal.getsignal(signal.SIGTERM) is before
