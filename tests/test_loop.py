import itertools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import loop
from tempseg_jax.builders.plan import Plan
from tempseg_jax.train_state import Player, TrainState


class Diverged(Exception):
    """The exception that `callbacks.diverged` returns here."""


def make_state(step=0, value=0.0):
    """Return a state with a single parameter."""
    params = {"w": jnp.float32(value)}
    return TrainState(jnp.int32(step), Player(params, {}, {}, None), None)


class Run:
    """A training loop with a fake step, and a record of its callbacks."""

    def __init__(self, *, evaluate_every=100, **callbacks):
        self.events, self.logged, self.first_batch = [], [], None
        self.loss_of = lambda number: 1.0
        self.parameter_of = float
        self.more_metrics = lambda number: {}
        self.during_step = lambda number: None
        every = dict(log_every=100, save_every=100) | callbacks
        self.evaluate_every = evaluate_every
        self.callbacks = loop.Callbacks(
            log=lambda number, means: self.logged.append((number, means)),
            evaluate=lambda state: self.events.append(("evaluate", int(state.step))),
            save=lambda state: self.events.append(("save", int(state.step))),
            diverged=lambda number, *found: Diverged(
                ": ".join([f"step {number}", *found])
            ),
            evaluates_after=self.evaluates_after,
            **every,
        )

    def evaluates_after(self, number):
        plan = Plan(self.last_step, 0, self.evaluate_every)
        return plan.evaluates_after(number)

    def step(self, state, batch):
        number = int(state.step) + 1
        self.first_batch = self.first_batch or int(batch["image"][0, 0, 0, 0])
        self.during_step(number)
        updated = make_state(number, self.parameter_of(number))
        metrics = {"loss": jnp.float32(self.loss_of(number)), "x": number}
        return updated, metrics | self.more_metrics(number)

    def train(self, *, start_step=0, last_step):
        self.last_step = last_step
        images = (
            {
                "image": np.full((4, 2, 2, 3), number, np.uint8),
                "label": np.zeros((4, 2, 2), np.uint8),
            }
            for number in itertools.count(start_step + 1)
        )
        state, self.interrupted = loop.train(
            make_state(start_step),
            images,
            step=self.step,
            place=lambda batch: batch,
            start_step=start_step,
            last_step=last_step,
            callbacks=self.callbacks,
        )
        return state


def test_evaluation_and_saving_follow_their_intervals_and_the_last_step():
    run = Run(evaluate_every=4, save_every=3)
    state = run.train(last_step=10)
    assert int(state.step) == 10
    assert run.events == [
        ("save", 3),
        ("save", 4),
        ("evaluate", 4),
        ("save", 6),
        ("save", 8),
        ("evaluate", 8),
        ("save", 9),
        ("save", 10),
        ("evaluate", 10),
    ]


def test_a_resumed_run_takes_the_remaining_steps_with_the_same_numbers():
    run = Run(evaluate_every=4, save_every=3)
    run.train(start_step=6, last_step=10)
    assert [event for event in run.events if event[0] == "evaluate"] == [
        ("evaluate", 8),
        ("evaluate", 10),
    ]
    assert run.first_batch == 7


def test_a_finished_run_does_nothing():
    run = Run()
    state = run.train(start_step=10, last_step=10)
    assert int(state.step) == 10
    assert run.events == run.logged == []


def test_every_step_is_averaged_in_exactly_one_log_line():
    run = Run(log_every=4, save_every=6)
    run.train(last_step=10)
    means = [(number, means["x"]) for number, means in run.logged]
    # A save also logs: a run resumed from it would not log steps 5 and 6.
    assert means == [(4, 2.5), (6, 5.5), (8, 7.5), (10, 9.5)]


def test_metrics_are_logged_while_later_steps_are_queued():
    run = Run(log_every=4, save_every=100)
    started, ahead = [], []
    run.during_step = started.append

    def log(number, means):
        ahead.append((number, started[-1] - number))

    run.callbacks = run.callbacks._replace(log=log)
    run.train(last_step=10)
    assert ahead == [(4, loop.IN_FLIGHT), (8, 2), (10, 0)]


def test_the_log_has_throughput_and_the_wait_for_data():
    run = Run()
    run.train(last_step=5)
    ((_, means),) = run.logged
    assert 0 <= means["data_wait"] <= 1
    np.testing.assert_allclose(means["images_per_s"], 4 * means["steps_per_s"])


def test_throughput_excludes_the_compilation_of_the_first_step(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    run = Run(log_every=4)

    def advance(number):
        clock[0] += 100.0 if number == 1 else 1.0

    run.during_step = advance
    run.train(last_step=8)
    # A line is logged when the loss of its last step is read: after steps 7 and 8.
    assert [means["steps_per_s"] for _, means in run.logged] == [4 / 6, 4 / 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("number", [1, 5, 10])
def test_a_loss_that_is_not_finite_stops_training_and_names_its_step(number, value):
    run = Run(evaluate_every=10, save_every=5)
    run.loss_of = lambda n: value if n >= number else 1.0
    started = []
    run.during_step = started.append
    message = f"^step {number}: segmenter: the loss is not finite.*loss"
    with pytest.raises(Diverged, match=message):
        run.train(last_step=10)
    assert all(step < number for _, step in run.events)
    assert started[-1] <= number + loop.IN_FLIGHT


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("loss_d", float("inf"), "discriminator: the loss is not finite"),
        ("loss_scale_g", 2.0**-15, "segmenter: its gradients overflow in float16"),
        ("loss_scale_d", 2.0**-15, "discriminator: its gradients overflow in float16"),
    ],
)
def test_a_player_that_diverges_while_l_g_is_finite_stops_training(
    name, value, message
):
    """float16 skips such updates, so that the state would stay finite forever."""
    run = Run(save_every=2)
    run.more_metrics = lambda n: {name: jnp.float32(value if n > 4 else 2.0**-14)}
    with pytest.raises(Diverged, match=f"^step 5: {message}"):
        run.train(last_step=10)
    assert run.events == [("save", 2), ("save", 4)]


def test_of_a_loss_with_an_infinite_l_adv_the_discriminator_is_named():
    run = Run()
    run.loss_of = lambda n: float("inf")
    run.more_metrics = lambda n: {
        "loss_seg": jnp.float32(1.0),
        "loss_d": jnp.float32(jnp.inf),
    }
    with pytest.raises(Diverged, match="^step 1: discriminator: the loss is not f"):
        run.train(last_step=3)


@pytest.mark.parametrize("every", ["save_every", "evaluate_every"])
def test_parameters_that_are_not_finite_are_never_saved(every):
    # The loss of step 3 is computed with the parameters before the update.
    run = Run(**{every: 3})
    run.parameter_of = lambda n: float("nan") if n == 3 else 1.0
    with pytest.raises(Diverged, match="^step 3: segmenter: the loss was finite"):
        run.train(last_step=10)
    assert run.events == []


@pytest.fixture
def ctrl_c():
    """Python's handler of SIGINT; a background process may ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_training_after_the_step_and_saves(sent):
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


def test_a_signal_during_the_last_evaluation_is_reported():
    run = Run()
    run.train(last_step=2)
    assert not run.interrupted

    def evaluate_and_terminate(state):
        os.kill(os.getpid(), signal.SIGTERM)

    run.callbacks = run.callbacks._replace(evaluate=evaluate_and_terminate)
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
    assert run.events == [("save", 2), ("evaluate", 2)] and not run.interrupted


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_ends_training_at_once():
    run = Run()

    def interrupt_twice(number):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    run.during_step = interrupt_twice
    with pytest.raises(KeyboardInterrupt):
        run.train(last_step=10)
    assert run.events == []


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_several_processes_becomes_the_sigterm_that_all_of_them_see(
    monkeypatch,
):
    run, notices = Run(), []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        loop.multihost_utils, "reached_preemption_sync_point", lambda _: bool(notices)
    )
    # In place of the handler of JAX's preemption service.
    before = signal.signal(signal.SIGTERM, lambda *_: notices.append("SIGTERM"))

    def interrupt(number):
        if number == 4:
            os.kill(os.getpid(), signal.SIGINT)

    run.during_step = interrupt
    try:
        run.train(last_step=10)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert run.events == [("save", 4)] and run.interrupted
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_during_an_evaluation_stops_after_the_next_step():
    run = Run(evaluate_every=4)
    evaluate = run.callbacks.evaluate

    def evaluate_and_terminate(state):
        evaluate(state)
        os.kill(os.getpid(), signal.SIGTERM)

    run.callbacks = run.callbacks._replace(evaluate=evaluate_and_terminate)
    run.train(last_step=10)
    assert run.events == [("save", 4), ("evaluate", 4), ("save", 5)]


def test_the_signal_handler_is_restored_after_an_error():
    run = Run()
    run.loss_of = lambda n: float("nan")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Diverged):
        run.train(last_step=3)
    assert signal.getsignal(signal.SIGTERM) is before
