import jax.numpy as jnp
import pytest

from tempseg_jax.cli import command


def test_a_mistake_is_one_line_and_exit_code_1():
    with pytest.raises(SystemExit, match="error: data.x: 3 is wrong; use 4") as stop:
        with command.one_line_errors(debug=False):
            raise ValueError("data.x: 3 is wrong; use 4")
    assert stop.value.code != 0
    with pytest.raises(ValueError), command.one_line_errors(debug=True):
        raise ValueError("shown where it arose")


def test_a_full_device_is_one_line_with_what_needs_less():
    with pytest.raises(SystemExit, match="out of memory .*raise accumulate"):
        with command.one_line_errors(debug=False):
            jnp.zeros(2**55, jnp.uint8)
