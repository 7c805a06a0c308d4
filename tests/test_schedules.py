import numpy as np
import pytest

from tempseg_jax.builders import schedules


def factors(*, steps, warmup_steps, cycles=1):
    """Return the factor on the learning rate at every step."""
    schedule = schedules.warmup_cosine(
        steps=steps, warmup_steps=warmup_steps, cycles=cycles
    )
    return np.array([schedule(step) for step in range(steps)])


def test_linear_warm_up_is_followed_by_cosine_decay_to_zero():
    values = factors(steps=25, warmup_steps=5)
    np.testing.assert_allclose(values[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    cosine = (1 + np.cos(np.pi * np.arange(20) / 20)) / 2
    np.testing.assert_allclose(values[5:], cosine, atol=1e-6)


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_without_warm_up_the_schedule_starts_at_the_peak(warmup_steps):
    values = factors(steps=10 + warmup_steps, warmup_steps=warmup_steps)
    cosine = (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    np.testing.assert_allclose(values[warmup_steps:], cosine, atol=1e-6)
    np.testing.assert_allclose(values[0], 1)


def test_cycles_restart_the_cosine_at_equal_intervals():
    values = factors(steps=65, warmup_steps=5, cycles=3)
    cosine = (1 + np.cos(np.pi * np.arange(20) / 20)) / 2
    np.testing.assert_allclose(values[5:], np.tile(cosine, 3), atol=1e-6)


def test_the_factor_is_above_0_and_at_most_1_at_every_step():
    for steps, warmup_steps, cycles in ((1, 0, 1), (7, 3, 2), (100, 9, 4)):
        values = factors(steps=steps, warmup_steps=warmup_steps, cycles=cycles)
        assert values.min() > 0
        assert values.max() <= 1


def test_the_schedule_depends_only_on_the_step():
    schedule = schedules.warmup_cosine(steps=20, warmup_steps=4, cycles=1)
    backwards = [float(schedule(step)) for step in reversed(range(20))]
    np.testing.assert_array_equal(
        backwards[::-1], factors(steps=20, warmup_steps=4).astype(float)
    )


@pytest.mark.parametrize(
    "lengths",
    [
        dict(steps=4, warmup_steps=4, cycles=1),
        dict(steps=6, warmup_steps=4, cycles=3),
        dict(steps=6, warmup_steps=0, cycles=0),
    ],
)
def test_a_warm_up_that_leaves_too_few_steps_is_refused(lengths):
    with pytest.raises(ValueError, match="optimizer.warmup_epochs.*shorten"):
        schedules.warmup_cosine(**lengths)


def test_the_temperature_schedules_go_from_start_to_end():
    def schedule(name):
        return 2.0 * schedules.temperature_schedule(name, start=2.0, end=0.5, steps=5)

    np.testing.assert_allclose(schedule("constant"), [2.0] * 5)
    np.testing.assert_allclose(schedule("linear"), [2.0, 1.625, 1.25, 0.875, 0.5])
    r = 0.75 * np.sqrt(0.5)
    np.testing.assert_allclose(schedule("cosine"), [2, 1.25 + r, 1.25, 1.25 - r, 0.5])
