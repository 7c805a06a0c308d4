"""Errors of the machine are told apart from damage, whoever raises them."""

import errno
import os

import pytest

from tempseg_jax.io import machine_errors


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ESTALE, "Stale file handle"),
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError(),
    ],
)
def test_errors_of_the_machine_are_raised_as_they_are(error):
    with pytest.raises(type(error)) as caught:
        machine_errors.reraise(error, path="folder")
    assert caught.value is error


def test_the_systems_message_in_another_error_is_found():
    with pytest.raises(OSError, match="^folder: cannot be read .Too many open files.;"):
        text = f"Failed to open: {os.strerror(errno.EMFILE)}"
        machine_errors.reraise(ValueError(text), path="folder")


def test_the_error_that_another_one_was_raised_from_is_found():
    try:
        try:
            raise OSError(errno.ETIMEDOUT, "Connection timed out")
        except OSError as error:
            raise ValueError("the header cannot be read") from error
    except ValueError as error:
        with pytest.raises(OSError, match="Connection timed out"):
            machine_errors.reraise(error, path="folder")


@pytest.mark.parametrize(
    "error", [ValueError("damaged"), FileNotFoundError(errno.ENOENT, "none"), OSError()]
)
def test_other_errors_pass(error):
    assert machine_errors.reraise(error, path="folder") is None
