"""Errors of the commands, printed as one line."""

import subprocess
import sys

import jax.numpy as jnp
import pytest

from tempseg_jax.cli import command


def test_an_error_is_printed_as_one_line_and_exits_with_code_1():
    with pytest.raises(SystemExit, match="error: data.x: 3 is wrong; use 4") as exit_:
        with command.one_line_errors(debug=False):
            raise ValueError("data.x: 3 is wrong; use 4")
    assert exit_.value.code != 0
    with pytest.raises(ValueError), command.one_line_errors(debug=True):
        raise ValueError("with a traceback")


def test_an_out_of_memory_error_is_printed_as_one_line_with_remedies():
    with pytest.raises(SystemExit, match="out of memory .*raise accumulate"):
        with command.one_line_errors(debug=False):
            jnp.zeros(2**55, jnp.uint8)


def test_an_error_of_the_system_has_the_path_and_a_remedy(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for path, reason in (
        (file, "file exists; a file is where a folder is needed; give another path"),
        (file / "x", "not a directory; a part of the path is a file; give another"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {path}: {reason}"):
            with command.one_line_errors(debug=False):
                path.mkdir()
    with pytest.raises(SystemExit, match="^error: x.bin: too short; delete it$"):
        with command.one_line_errors(debug=False):
            raise OSError(28, "too short; delete it", "x.bin")


@pytest.mark.parametrize("flush", [True, False])
def test_a_closed_pipe_ends_the_command_without_a_message(flush):
    program = f"""
from tempseg_jax.cli import command
with command.one_line_errors(debug=False):
    input()
    for number in range(20):
        print(number, flush={flush})
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    process.stdout = None
    _, stderr = process.communicate(b"\n")
    assert (process.returncode, stderr) == (141, b"")


def test_another_broken_pipe_is_an_error():
    with pytest.raises(SystemExit, match="^error: worker"):
        with command.one_line_errors(debug=False):
            raise BrokenPipeError("worker 3 ended; start again")
