import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import ROOT

SCRIPTS = ROOT / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)  # as Python does when it runs a script


@pytest.fixture
def runner():
    return importlib.import_module("gpu_parts.runner")


@pytest.fixture
def gpu_day():
    return importlib.import_module("gpu_day")


def python(program="print('{}')"):
    return [sys.executable, "-S", "-c", program]


def run(runner, folder, parts, *, seconds=60.0):
    """Run parts, given as {name: {case name: program or case}}; return their number."""

    def part(name, programs):
        cases = {
            key: each if isinstance(each, runner.Case) else runner.Case(python(each))
            for key, each in programs.items()
        }
        return runner.Part(name, 1.0, lambda settings: cases)

    deadline = time.monotonic() + seconds
    day = runner.Day(folder, deadline=deadline, shortest_s=10.0)
    return day.run([part(*item) for item in parts.items()], None)


def read(folder, part):
    return json.loads((folder / f"{part}.json").read_text())


def test_a_failure_is_recorded_with_its_error_and_the_rest_goes_on(runner, tmp_path):
    parts = {
        "first": {"bad": "print('{\"a\": 1}'); raise ValueError('no card')"},
        "second": {"good": "print('noise'); print('{\"b\": 2}')"},
    }
    assert run(runner, tmp_path, parts) == 1
    bad, good = read(tmp_path, "first")["bad"], read(tmp_path, "second")["good"]
    assert (bad["status"], bad["error"]) == ("failed", "ValueError: no card")
    assert bad["results"] == [{"a": 1}]  # what it printed before is kept
    assert (good["status"], good["results"]) == ("done", [{"b": 2}])


OUT_OF_MEMORY = """
error = MemoryError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
error.add_note("--------------------")
error.add_note("For simplicity, JAX has removed its internal frames")
raise error
"""


@pytest.mark.parametrize(
    ("program", "error"),
    [
        (OUT_OF_MEMORY, "MemoryError: RESOURCE_EXHAUSTED: Out of memory allocating 9"),
        ("import sys; sys.exit('error: no data')", "error: no data"),
        ("import sys; sys.exit('no such card')", "no such card"),
        ("raise SystemExit(3)", ""),
    ],
)
def test_the_error_is_the_line_that_names_it_not_a_note_after_it(
    runner, tmp_path, program, error
):
    noise = "import sys\nfor i in range(40): print('line', i, file=sys.stderr)\n"
    case = runner.Case(python(noise + program if error else program))
    result = runner.run_case(case, limit_s=60.0, log=tmp_path / "log")
    assert result["error"].startswith(error)
    lines = (tmp_path / "log.err").read_text().splitlines()
    assert result["error_lines"] == [line for line in lines if line.strip()][-15:]


def test_a_command_without_a_result_has_failed(runner, tmp_path):
    assert run(runner, tmp_path, {"part": {"silent": "print('no JSON')"}}) == 1
    silent = read(tmp_path, "part")["silent"]
    assert silent["status"] == "failed"
    assert silent["error"] == "it ended without an error or a result"


def test_a_case_has_half_of_the_time_box_of_its_part(runner, tmp_path):
    programs = {"a": "print('{}')"}  # the box is a minute
    assert run(runner, tmp_path, {"part": programs}, seconds=600.0) == 0
    assert read(tmp_path, "part")["a"]["limit_s"] == 30.0


def test_the_results_are_printed_when_a_case_ends(runner, tmp_path, capsys):
    programs = {"good": "print('{\"ms\": 2.5}')", "bad": "raise ValueError('no card')"}
    run(runner, tmp_path, {"part": programs})
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert (good["part"], good["case"], good["status"]) == ("part", "good", "done")
    assert good["results"] == [{"ms": 2.5}]
    assert (bad["case"], bad["error"]) == ("bad", "ValueError: no card")


def test_results_of_another_version_of_the_program_are_kept_and_named(
    runner, tmp_path, capsys, monkeypatch
):
    parts = {"part": {"a": "print('{}')"}}
    assert run(runner, tmp_path, parts) == 0
    first = read(tmp_path, "part")["a"]
    assert first["program"] == runner.program.version()["program"]
    assert run(runner, tmp_path, parts) == 0
    assert "another version" not in capsys.readouterr().out
    monkeypatch.setattr(runner.program, "version", lambda: {"program": "other"})
    assert run(runner, tmp_path, parts) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'part'}.json: measured with another version" in said
    assert "kept: a;" in said
    assert read(tmp_path, "part")["a"] == first


def test_a_second_call_skips_finished_cases_and_tries_failed_ones_last(
    runner, tmp_path
):
    log = tmp_path / "log"
    note = f"print('{{}}'); open({str(log)!r}, 'a').write(%r)"
    fails_once = f"import os, sys; sys.exit(not os.path.exists({str(log)!r} + '2'))"
    parts = {
        "part": {
            "fails": note % "f" + f"; {fails_once}",
            "done": note % "d",
        }
    }
    assert run(runner, tmp_path, parts) == 1
    (tmp_path / "log2").touch()
    parts["part"]["new"] = note % "n"
    assert run(runner, tmp_path, parts) == 0
    assert log.read_text() == "fd" + "nf"


def test_a_case_that_had_its_whole_time_box_is_tried_last(runner, tmp_path):
    log = tmp_path / "log"
    note = f"print('{{}}'); open({str(log)!r}, 'a').write(%r)"
    # The case "all" was stopped after half of the box of one minute, "part" before.
    write_stopped(runner, tmp_path, {"all": 29.0, "part": 20.0})
    programs = {name: note % name[0] for name in ("all", "part", "new")}
    assert run(runner, tmp_path, {"part": programs}) == 0
    assert log.read_text() == "pna"


def write_stopped(runner, folder, limits):
    """Write results of cases that were stopped, by name and limit in seconds."""
    options = runner.Case(python()).options
    results = {
        name: {"status": "stopped", "limit_s": limit, "options": options}
        for name, limit in limits.items()
    }
    (folder / "part.json").write_text(json.dumps(results))


def test_a_case_that_had_a_whole_call_is_tried_last_unless_it_resumes(runner, tmp_path):
    log = tmp_path / "log"
    note = f"print('{{}}'); open({str(log)!r}, 'a').write(%r)"
    write_stopped(runner, tmp_path, {"all": 29.0, "resumes": 29.0})
    parts = {
        "part": {
            "all": note % "a",
            "resumes": runner.Case(python(note % "r"), resumes=True),
            "new": note % "n",
        }
    }
    assert run(runner, tmp_path, parts, seconds=30.0) == 0
    assert log.read_text() == "rna"


def test_results_of_other_options_are_replaced(runner, tmp_path):
    def count(*options, env):
        program = f"print('{{}}'); open({str(tmp_path / 'log')!r}, 'a').write('x')"
        case = runner.Case([*python(program), *options], env)
        assert run(runner, tmp_path, {"part": {"a": case}}) == 0
        return len((tmp_path / "log").read_text())

    assert count("--size=32", env={"XLA_FLAGS": "a", "CACHE": "/one"}) == 1
    assert count("--size=32", env={"XLA_FLAGS": "a", "CACHE": "/two"}) == 1
    assert count("--size=416", env={"XLA_FLAGS": "a"}) == 2
    assert count("--size=416", env={"XLA_FLAGS": "b"}) == 3


def test_results_stay_if_a_later_call_cannot_run_their_cases(runner, tmp_path):
    done = {"part": {"a": runner.Case(python("print('{}')"))}}
    assert run(runner, tmp_path, done) == 0
    missing = {"part": {"a": runner.Case(["x", "--y=None"], unavailable="no CamVid")}}
    assert run(runner, tmp_path, missing) == 0
    assert read(tmp_path, "part")["a"]["status"] == "done"


def test_results_of_other_options_are_not_counted_as_finished(runner, tmp_path):
    tiny = {"part": {"a": runner.Case([*python(), "--size=32"])}}
    assert run(runner, tmp_path, tiny) == 0
    large = {"part": {"a": runner.Case([*python(), "--size=416"])}}
    assert run(runner, tmp_path, large, seconds=1.0) == 1


def test_other_weights_and_sizes_are_other_options_and_workdirs(gpu_day, tmp_path):
    def training(*words):
        words = ["--tiny", f"--out={tmp_path}", f"--manual_dir={tmp_path}", *words]
        cases = gpu_day.PARTS[-1].cases(gpu_day.parse(words))
        workdirs = {
            word
            for case in cases.values()
            for word in map(str, case.command)
            if word.startswith("--workdir")
        }
        assert len(workdirs) == 1  # all cells are in one sweep
        return cases["baseline"].options, workdirs.pop()

    for folder, name in (("w", "a"), ("w", "b"), ("other", "a")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.h5").touch()
    weights = f"--weights=resnet50={tmp_path}"
    others = [
        training(f"{weights}/w/a.h5"),
        training(f"{weights}/w/b.h5"),
        training(f"{weights}/w/a.h5", "--config.seed=3"),
    ]
    for i, (options, workdir) in enumerate(others):
        for other_options, other_workdir in others[:i]:
            assert options != other_options and workdir != other_workdir
    assert training(f"{weights}/other/a.h5") == others[0]


def test_weights_are_given_only_to_the_network_that_they_fit(gpu_day, tmp_path):
    file = tmp_path / "vgg.h5"
    file.touch()
    words = ["--tiny", f"--out={tmp_path}", f"--manual_dir={tmp_path}"]
    settings = gpu_day.parse([*words, f"--weights=fcn8s={file}"])

    def pretrained(case):
        return [x for x in case.command if "pretrained" in str(x)]

    loop = gpu_day.cases.loop(settings)
    assert pretrained(loop["fcn_camvid"]) == [f"--config.model.pretrained={file}"]
    for case in (loop["resnet50_camvid"], *gpu_day.cases.training(settings).values()):
        assert pretrained(case) == ["--config.model.pretrained="]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_case_that_runs(tmp_path, number):
    pid = tmp_path / "pid"
    case = (
        "import os, pathlib, time; "
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    program = (
        "import sys, gpu_day\n"
        "from gpu_parts import runner\n"
        f"cases = {{'a': runner.Case([sys.executable, '-S', '-c', {case!r}])}}\n"
        "gpu_day.PARTS = (runner.Part('part', 9, lambda settings: cases),)\n"
        f"sys.argv = ['gpu_day.py', '--tiny', '--out={tmp_path}', '--parts', 'part']\n"
        "sys.exit(gpu_day.main())\n"
    )
    day = subprocess.Popen([sys.executable, "-c", program], cwd=SCRIPTS)
    while not (pid.exists() and pid.read_text()):
        assert day.poll() is None
        time.sleep(0.1)
    # In the session of this process, whose end would end it as well.
    assert os.getsid(int(pid.read_text())) == os.getsid(day.pid)
    day.send_signal(number)
    assert day.wait() == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_case_ends_at_the_time_limit_with_its_results_so_far(runner, tmp_path):
    slow = "import time; print('{\"a\": 1}', flush=True); time.sleep(600)"
    case = runner.Case(python(slow))
    result = runner.run_case(case, limit_s=2.0, log=tmp_path / "slow")
    assert (result["status"], result["results"]) == ("stopped", [{"a": 1}])
    assert result["seconds"] < 60


def test_nothing_is_started_when_the_time_is_over(runner, tmp_path):
    assert run(runner, tmp_path, {"part": {"a": "1/0"}}, seconds=1.0) == 1
    assert not (tmp_path / "part.json").exists()


def test_what_is_not_available_is_said_in_words_and_is_not_left_to_do(runner, tmp_path):
    case = runner.Case(unavailable="no PyTorch")
    assert run(runner, tmp_path, {"part": {"peer": case}}) == 0
    expected = {"status": "not available", "reason": "no PyTorch", "options": {}}
    expected = {"peer": expected}
    assert read(tmp_path, "part") == expected


def assert_known(command):
    """Check that the script defines every option; it is not imported, which is slow."""
    script = Path(command[1])
    name = {"loop_speed": "tempseg_jax/main.py"}.get(script.stem)
    if script.stem == "benchmark":
        name = f"scripts/benchmark_parts/{command[2]}.py"
    source = (ROOT / name if name else script).read_text()
    for word in command[2:]:
        option = str(word).partition("=")[0]
        if option.startswith("--") and not option.startswith("--config"):
            assert f'"{option}"' in source or f'"{option[2:]}"' in source, word


def test_every_part_has_cases_whose_commands_exist(gpu_day, tmp_path):
    words = [f"--out={tmp_path}", f"--manual_dir={tmp_path}", "--tiny"]
    settings = gpu_day.parse([*words, "--config.seed=3"])
    for part in gpu_day.PARTS:
        cases = part.cases(settings)
        assert cases and all(name.isascii() for name in cases)
        for case in cases.values():
            assert all(Path(word).exists() for word in case.command[:2])
            assert_known(case.command)
    trainings = [*gpu_day.PARTS[-1].cases(settings).values()]
    assert all("--config.seed=3" in case.command for case in trainings)


def test_no_case_can_fall_back_to_the_cpu(gpu_day, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_day.huge_pages, "computes_on_cpu", lambda: False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    settings = gpu_day.parse([f"--out={tmp_path}", f"--manual_dir={tmp_path}"])
    assert (settings.device, settings.tiny) == ("cuda", False)
    for part in gpu_day.PARTS:
        for name, case in part.cases(settings).items():
            # PyTorch has no fallback, and `compile` needs no GPU.
            if "torch" not in name and "compiled" not in name:
                assert case.env["JAX_PLATFORMS"] == "cuda", (part.name, name)


def test_without_a_gpu_only_tiny_sizes_are_measured(gpu_day, tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu_day.parse([f"--out={tmp_path}"])
    assert "--tiny tries the command on a CPU" in capsys.readouterr().err


def test_a_missing_package_is_said_before_anything_runs(gpu_day, tmp_path, monkeypatch):
    def find_spec(name, find=importlib.util.find_spec):
        return None if name in ("grain", "tensorboardX") else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    words = ["--tiny", f"--out={tmp_path}", f"--manual_dir={tmp_path}"]
    settings = gpu_day.parse(words)
    for part in gpu_day.PARTS:
        for name, case in part.cases(settings).items():
            if part.name in ("loop", "training"):
                assert case.unavailable.startswith("not installed: grain, tensorboardX")
            elif part.name == "determinism":
                assert case.unavailable.startswith("not installed: grain;")
            elif "torch" not in name and "compiled" not in name:
                assert not case.unavailable, (part.name, name)


def test_memory_is_measured_after_a_process_that_fills_the_cache(gpu_day, tmp_path):
    settings = gpu_day.parse(["--tiny", f"--out={tmp_path}"])
    cases = gpu_day.cases.memory(settings)
    for mode in ("supervised", "adversarial"):
        for model in ("fcn8s", "resnet50"):
            measured = cases[f"{model}-{mode}-measured"].command
            assert list(measured[-3:]) == ["--mode", mode, mode]
            assert f"--mode={mode}" in cases[f"{model}-{mode}-compiled"].command


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--manual_dir=missing", "missing: this folder does not exist"),
        ("--weights=vgg.h5", "give NETWORK=FILE with a NETWORK of fcn8s, resnet50"),
        ("--weights=fcn8s=missing.h5", "the file 'missing.h5' does not exist"),
        ("--config.model.pretrained=a.h5", "give --weights=NETWORK=FILE"),
        ("--sizes=3", "unknown option --sizes=3"),
        ("--peer_python=no-such-python", "there is no such program"),
    ],
)
def test_a_wrong_option_is_reported(gpu_day, tmp_path, capsys, word, message):
    with pytest.raises(SystemExit):
        gpu_day.parse([f"--out={tmp_path}", word])
    assert message in capsys.readouterr().err
