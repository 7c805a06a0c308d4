"""Run a function in a forked process, bounded in time and memory."""

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MEMORY = 24 << 30  # bytes of address space
LIMIT = 120.0  # seconds; a process that takes longer counts as hanging
PATIENCE = 10  # or, on a busy machine, this many times what an undisturbed run takes
_NOISE = ("WARNING", "W1", "W0", "preparing ", "\x1b", "Stopping after")
# The decoders of OpenCV write these from C, and no option silences them.
_DECODERS = ("libpng ", "Corrupt JPEG data", "Premature end of JPEG", "Invalid JPEG")


_RUNNING: set[int] = set()  # process ids


def kill_running() -> None:
    """Kill all processes that were started and not waited for."""
    for pid in _RUNNING:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    _RUNNING.clear()


class Outcome(NamedTuple):
    """How a process ended."""

    code: int  # negative: the signal that ended it
    out: str
    err: str
    hung: bool
    peak: int  # bytes of memory

    @property
    def errors(self) -> list[str]:
        """Lines on stderr, without warnings, progress, and those of image decoders."""
        left_out = _NOISE + _DECODERS
        return [x for x in self.err.splitlines() if x and not x.startswith(left_out)]

    @property
    def was_stopped(self) -> bool:
        """Whether a signal reached it before its end, and not after it."""
        stopped = "Stopping after this step" in self.err
        return stopped or self.code in (-signal.SIGKILL, -signal.SIGTERM)

    @property
    def refused(self) -> bool:
        """Whether it ended with exit code 1 and one line that says why."""
        return (
            self.code == 1
            and len(self.errors) == 1
            and self.errors[0].startswith("error: ")
        )


class Child:
    """A forked process that calls a function; its package is already imported."""

    def __init__(self, call: Callable[[], None], *, before: Callable = lambda: None):
        """Start it; `before` is called in the child, to lower its limits."""
        self._files = [tempfile.TemporaryFile() for _ in range(2)]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._run(call, before)
        _RUNNING.add(self.pid)

    def _run(self, call: Callable[[], None], before: Callable) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the campaign's own handler
            _RUNNING.clear()  # those of the campaign
            os.dup2(self._files[0].fileno(), 1)
            os.dup2(self._files[1].fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            before()
            call()
            code = 0
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def signal(self, number: int) -> None:
        """Send a signal to the process, which may have ended."""
        os.kill(self.pid, number)

    def wait(self, limit: float = LIMIT) -> Outcome:
        """Wait for its end; after `limit` seconds it is killed."""
        end, hung = time.monotonic() + limit, False
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                _RUNNING.discard(pid)
                break
            if time.monotonic() > end and not hung:
                hung = True
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        code = os.waitstatus_to_exitcode(status)
        return Outcome(code, *texts, hung, usage.ru_maxrss * 1024)


def command(module: str, arguments: list[str]) -> Callable[[], None]:
    """Return a function that runs a command line of the package or of scripts/."""

    def run() -> None:
        sys.argv = [module, *arguments]
        if module == "main":
            from tempseg_jax import main

            main.run()
        else:
            import runpy

            path = Path(__file__).parents[1] / f"{module}.py"
            runpy.run_path(str(path), run_name="__main__")

    return run
