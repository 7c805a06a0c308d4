"""Error messages of the command line, and the output of `--mode=describe`."""

import json
import os
import subprocess
import sys

import pytest

from tempseg_jax.workdir import saved_config
from tests.support import ROOT, load_config

MISTAKES = {
    # Arguments after --config=configs/demo.py, and the line that is printed.
    "--config.objective.temprature_g=1": "--config.objective.temprature_g: the config "
    "has no field 'temprature_g'; did you mean 'temperature_g'?",
    "--config.objctive.alpha=1": "--config.objctive.alpha: the config has no field "
    "'objctive'; did you mean 'objective'?",
    "--config.zzz=1": "--config.zzz: the config has no field 'zzz'; --mode=describe",
    "--config.data.batch_size=many": "data.batch_size=many: give a whole number\n",
    "--config.objective.alpha=much": "--config.objective.alpha=much: give a number\n",
    "--config.model=resnet50": "--config.model=resnet50: it is a group of fields; set "
    "one of them, as by --config.model.FIELD=VALUE\n",
    "--config=configs/fcn_vok.py": "no such file; did you mean configs/fcn_voc.py?",
    "--mode=tran": "--mode=tran: value should be one of <train|eval|describe>",
    "--wokdir=x": "Unknown command line flag 'wokdir'. Did you mean: workdir",
    "--config=configs/saved.py": "--config: configs/saved.py: the workdir is missing; "
    "give it after a colon, as in --config=configs/saved.py:runs/demo",
    "--config=configs/saved.py:{workdir}": "--config: {workdir}/config.json: no such "
    "file, so {workdir} is not the workdir of a run; train with --workdir first",
    "": "--workdir: missing; for example --workdir=runs/demo",
    "--workdir={workdir} extra": "'extra': unexpected argument; options start with --",
    "--workdir={workdir} --mode=eval": "{workdir}/checkpoints: no checkpoint 'best' "
    "(available: none); train with this workdir first",
    "--workdir={workdir} --config.objective.temperature_d=0": "objective.temperature_d:"
    " 0.0 is not allowed; give a finite number above 0",
    "--workdir={workdir} --config.objective.adversary=began": "objective.adversary: "
    "'began' is not one of dcgan, hinge, lsgan, minimax, wgan, wgan_gp",
    "--workdir={workdir} --config.data.batch_size=513": "data.batch_size: 513 is more "
    "than the 512 images of data.train_split 'train'; choose a smaller batch",
    "--workdir={workdir} --scales=1,2": "--scales: only with --mode=eval; training "
    "resumes from the latest checkpoint and evaluates data.val_split",
    "--workdir={workdir} --nofit_temperature": "--fit_temperature: only with --mode",
    "--workdir={workdir} --config.data.manual_dir=own": "data.manual_dir: own is not "
    "read, because data.name='scenes' generates its images; for your own images write "
    "a config by scripts/prepare.py --dataset=folder --manual_dir=own",
    "--workdir={workdir} --distributed": "--distributed: no job of SLURM, Kubernetes, "
    "Open MPI or a TPU pod was detected",
    "--config=configs": "--config=configs: it is a folder; give the path of a file",
    "--config.steps=3 --config=configs/demo.py": "--config.steps: give it after --c",
    "--workdir={workdir} --config.steps=0": "steps: 0 is not allowed; give a "
    "whole number of at least 1",
    "--workdir={workdir} --config.save_every_steps=0": "save_every_steps: 0 is not "
    "allowed; give a whole number of at least 1",
}
# Runs each command in a forked process, so that the package is imported only once, and
# ends it by os._exit, because Python's normal exit takes a second.
LAUNCHER = """
import json, os, sys, traceback
from tempseg_jax import main
from tempseg_jax.data import prepared
for i, arguments in enumerate(json.load(sys.stdin)):
    child = os.fork()
    if not child:
        output = os.open(f"{sys.argv[1]}/{i}", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1), os.dup2(output, 2)
        sys.argv = ["main", *arguments]
        try:
            main.run()
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = int(end.code or 0) if not isinstance(end.code, str) else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def launch(commands, folder):
    """Run the commands; return the exit code and the output of each."""
    folder.mkdir()
    process = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(folder)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": ""},  # no restart
        input=json.dumps(commands),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    codes = map(int, process.stdout.split())
    outputs = [(folder / str(i)).read_text() for i in range(len(commands))]
    return list(zip(codes, outputs, strict=True))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("workdir")


@pytest.fixture(scope="module")
def outcomes(data_dir, workdir, tmp_path_factory):
    demo = ["--config=configs/demo.py", f"--config.data.data_dir={data_dir}"]
    commands = []
    for arguments in MISTAKES:
        words = arguments.format(workdir=workdir).split()
        replaced = any(word.startswith("--config=") for word in words)
        commands.append(words if replaced else demo + words)
    results = launch(commands, tmp_path_factory.mktemp("main") / "outputs")
    return dict(zip(MISTAKES, results, strict=True))


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_prints_one_line_and_exits_with_code_1(outcomes, workdir, arguments):
    code, output = outcomes[arguments]
    assert code == 1, output
    assert MISTAKES[arguments].format(workdir=workdir) in output
    lines = [x for x in output.splitlines() if x and not x.startswith("Pass --help")]
    assert len(lines) == 1, output
    assert lines[0].startswith(("error: ", "FATAL Flags parsing error: "))


def test_mistakes_write_nothing_to_disk(outcomes, workdir):
    assert list(workdir.iterdir()) == []


def test_the_config_of_a_run_is_taken_from_its_workdir_and_can_be_overridden(tmp_path):
    config = load_config("demo")
    config.objective.temperature_g = 0.75
    run, other = tmp_path / "run", tmp_path / "other"
    saved_config.claim(run, config, allow_change=False)
    place = f"--config.data.manual_dir={tmp_path}/moved"
    of_run = [f"--workdir={run}", "--mode=describe"]
    outcomes = launch(
        [
            of_run,
            [*of_run, place, "--config.steps=7"],
            [f"--config=configs/saved.py:{run}", "--mode=describe", place],
            [*of_run, "--config.steps=x"],
            [*of_run, "--config.stps=7"],
            [f"--workdir={other}", "--mode=eval", place],
            ["--mode=eval", place],
            [f"--workdir={run}", place],
        ],
        tmp_path / "outputs",
    )
    assert [code for code, _ in outcomes] == [0, 0, 0, 1, 1, 1, 1, 1], outcomes
    printed = [output for _, output in outcomes]
    assert all("temperature_g: 0.75" in output for output in printed[:3])
    assert "manual_dir: null" in printed[0] and "\nsteps: null" in printed[0]
    assert f"manual_dir: {tmp_path}/moved" in printed[1] and "\nsteps: 7" in printed[1]
    assert f"manual_dir: {tmp_path}/moved" in printed[2]
    assert printed[3].startswith("error: steps: 'x' is not allowed; give a whole")
    assert "did you mean 'steps'?" in printed[4]
    assert printed[5].startswith(f"error: {other}/config.json: no such file")
    for output in printed[6:]:
        assert "--config.data.manual_dir: no config comes before it; give" in output
    assert not other.exists()


def test_describe_prints_the_parameters_of_table_4_and_debug_shows_a_traceback(
    tmp_path,
):
    (code, described), (failed, traceback), (missing, message) = launch(
        [
            ["--config=configs/fcn_voc.py", "--mode=describe"],
            ["--config=configs/demo.py", "--debug"],
            ["--mode=describe"],
        ],
        tmp_path / "outputs",
    )
    assert code == 0, described
    lines = described.splitlines()
    assert lines[:2] == [
        "segmenter: fcn8s, 21 classes, head score",
        "discriminator: dcgan",
    ]
    assert "segmenter parameters: 134475647" in lines
    assert "discriminator parameters: 2785089" in lines
    assert any(line.strip() == "name: fcn8s" for line in lines)
    assert failed == 1
    assert "Traceback" in traceback
    assert "--workdir: missing" in traceback
    assert missing == 1
    assert message == "error: --config: missing; for example --config=configs/demo.py\n"
