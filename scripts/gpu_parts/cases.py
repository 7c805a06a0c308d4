"""The cases of each part: which commands are run, with which options."""

import functools
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from gpu_parts import packages
from gpu_parts.case import Case
from gpu_parts.finished_runs import finished_runs
from gpu_parts.settings import Settings

SCRIPTS = Path(__file__).parents[1]
ROOT = SCRIPTS.parent
NETWORKS, MODES = ("fcn8s", "resnet50"), ("supervised", "adversarial")
PRECISIONS = ("bfloat16", "float16", "float32")

FLAGS = {
    "none": "",
    "command_buffer": "--xla_gpu_enable_command_buffer=+CONVOLUTION",
    "conv_fusion": "--xla_gpu_experimental_enable_conv_fusion=true",
    "runtime_fusion": "--xla_gpu_use_runtime_fusion=true",
    "conv_nhwc": "--xla_gpu_force_conv_nhwc=true",
    "gemm_fusion": "--xla_gpu_cudnn_gemm_fusion_level=2",
}
"""XLA's flags that are tried one at a time; the names exist in jaxlib 0.10 to 0.12."""

EXCLUDE = "--xla_gpu_exclude_nondeterministic_ops=true"
"""Only deterministic operations, chosen by autotuning (openxla/xla #12520)."""

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""The same, without autotuning."""


def precisions(settings: Settings) -> dict[str, Case]:
    """Every precision trains a few steps of each network; all metrics are finite."""
    return {
        f"{model}-{dtype}": _benchmark(
            settings, model, "adversarial", dtype, steps=5, warmup=1
        )
        for model in NETWORKS
        for dtype in PRECISIONS
    }


def gradients(settings: Settings) -> dict[str, Case]:
    """Each network's gradients in 16 bits and TF32, against full float32."""
    script = SCRIPTS / "gpu_parts" / "gradient_error.py"
    options = [*settings.sizes, *["--width=0.05"] * settings.tiny]
    return {
        model: Case(
            [sys.executable, script, f"--model={model}", *options],
            settings.env,
            unavailable=packages.missing(packages.STEP),
        )
        for model in NETWORKS
    }


def step_times(settings: Settings) -> dict[str, Case]:
    """Ours, and PyTorch eager and compiled, one after the other for each network."""
    result = {}
    for model in NETWORKS:
        for mode in MODES:
            result[f"{model}-{mode}"] = _benchmark(
                settings, model, mode, "bfloat16", steps=50, warmup=5
            )
            for kind in ("eager", "compiled"):
                result[f"{model}-{mode}-torch-{kind}"] = _peer(
                    settings, model, mode, compiled=kind == "compiled"
                )
    return result


def profile(settings: Settings) -> dict[str, Case]:
    """A profiler trace of a few steps, in OUT/trace, for TensorBoard or xprof."""
    result = {}
    for model in NETWORKS:
        case = _benchmark(
            settings, model, "adversarial", "bfloat16", steps=25, warmup=3
        )
        trace = f"--profile={settings.out / 'trace' / model}"
        result[model] = case._replace(command=[*case.command, trace])
    return result


def determinism(settings: Settings) -> dict[str, Case]:
    """Whether a resumed run equals an uninterrupted one bit for bit.

    The control compares two uninterrupted runs that read the same choice of algorithms:
    if they differ, no checkpoint can make a resumed run equal.
    """
    script = SCRIPTS / "gpu_parts" / "resume_bitwise.py"
    tables = settings.out / "autotune"
    result = {}
    for name, flag, tuned in (
        ("default", "", False),
        ("control", "", True),
        ("autotune_results", "", True),
        ("exclude_nondeterministic", EXCLUDE, False),
        ("exclude_and_autotune_results", EXCLUDE, True),
        ("deterministic_ops", DETERMINISTIC, False),
    ):
        command = [sys.executable, script, *settings.sizes]
        command += ["--width=0.05", "--steps=4"] * settings.tiny
        command += [f"--workdir={settings.out / 'work' / name}"]
        if tuned:
            command.append(f"--autotune_results={tables / name}.txt")
        if name == "control":
            command.append("--control")
        result[name] = Case(
            command,
            settings.platform | {"XLA_FLAGS": flag},
            unavailable=packages.missing(packages.CONFIG),
        )
    return result


def memory(settings: Settings) -> dict[str, Case]:
    """The memory of a step as the allocator measures it, and as compiled.

    A step is measured in two processes. The second finds its program in the compilation
    cache, so its peak has no memory in which XLA tried out algorithms.
    """
    result = {}
    missing = packages.missing_compiler() or packages.missing(packages.CONFIG)
    steps = [(model, mode) for model in NETWORKS for mode in MODES]
    for model, mode in steps:
        case = _benchmark(settings, model, mode, "bfloat16", steps=5, warmup=1)
        twice = [*case.command, "--mode", mode, mode]
        result[f"{model}-{mode}-measured"] = case._replace(command=twice)
    for model, mode in steps:
        command = [sys.executable, SCRIPTS / "benchmark.py", "compile"]
        command += [f"--model={model}", f"--mode={mode}", "--dtype=bfloat16"]
        command += [*settings.sizes, f"--card={settings.card}"]
        result[f"{model}-{mode}-compiled"] = Case(command, unavailable=missing)
    return result


def loop(settings: Settings) -> dict[str, Case]:
    """Images per second of the training loop on CamVid, and its wait for data."""
    script = SCRIPTS / "gpu_parts" / "loop_speed.py"
    configs = {"fcn_camvid": "fcn8s", "resnet50_camvid": "resnet50"}
    result = {}
    for name in (*configs, *["demo"] * settings.tiny):
        command = [sys.executable, script, f"--config=configs/{name}.py"]
        missing = packages.missing(packages.TRAINING)
        if name != "demo":
            command += _training_options(settings, configs[name])
            missing = _no_data(settings)
        if settings.tiny:
            command += ["--config.steps=4", "--config.log_every_steps=2"]
            command += ["--config.data.crop_size=32", "--config.data.batch_size=2"]
            command.append("--config.model.width=0.05")
        else:
            command += ["--config.steps=300", "--config.log_every_steps=50"]
        command.append(f"--workdir={settings.out / 'work' / _folder(name, command)}")
        result[name] = Case(command, settings.env, unavailable=missing)
    return result


def flags(settings: Settings) -> dict[str, Case]:
    """The adversarial step with one of XLA's flags at a time.

    ResNet-50 comes first: its many small kernels have the most to gain.
    """
    result = {}
    for model in reversed(NETWORKS):
        for name, flag in FLAGS.items():
            case = _benchmark(
                settings, model, "adversarial", "bfloat16", steps=25, warmup=3
            )
            # XLA's cache of autotuning does not know of flags.
            env = {"XLA_FLAGS": flag, "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none"}
            result[f"{model}-{name}"] = case._replace(env=case.env | env)
    return result


def training(settings: Settings) -> dict[str, Case]:
    """Cells of the ablation study on CamVid, one after the other, each resumable.

    The results of each are the scores of all runs that are finished by then.
    """
    result = {}
    for cell in ("baseline", "adversarial", "tg0.5", "tg2"):  # table 3
        command = [sys.executable, SCRIPTS / "sweep.py", "--table=3", "--seeds=1"]
        command += [f"--config={ROOT / 'configs' / 'resnet50_camvid.py'}"]
        command += _training_options(settings, "resnet50")
        if settings.tiny:
            command += ["--config.steps=2", "--config.data.crop_size=32"]
            command += ["--config.data.batch_size=2", "--config.model.width=0.05"]
            command += ["--train_images=2"]
        sweep = settings.out / _folder("sweep", command)
        command += [f"--workdir={sweep}", f"--cells={cell}"]
        result[cell] = Case(
            command,
            settings.env,
            unavailable=_no_data(settings),
            resumes=True,
            read=functools.partial(finished_runs, sweep),
        )
    return result


def _folder(name: str, command: list[str | Path]) -> str:
    """Return a name for a workdir, which belongs to one config."""
    options = json.dumps(Case(command).options, sort_keys=True)
    return f"{name}-{hashlib.sha256(options.encode()).hexdigest()[:8]}"


def _benchmark(
    settings: Settings, model: str, mode: str, dtype: str, *, steps: int, warmup: int
) -> Case:
    command = [sys.executable, SCRIPTS / "benchmark.py", "train", f"--model={model}"]
    command += [f"--mode={mode}", f"--dtype={dtype}", *settings.sizes]
    command += _length(settings, steps=steps, warmup=warmup)
    missing = packages.missing(packages.STEP)
    return Case(command, settings.env, unavailable=missing)


def _length(settings: Settings, *, steps: int, warmup: int) -> list[str]:
    if settings.tiny:
        steps, warmup = 5, 1
    return [f"--steps={steps}", f"--warmup={warmup}"]


def _peer(settings: Settings, model: str, mode: str, *, compiled: bool) -> Case:
    python = settings.peer_python
    command = [python, SCRIPTS / "peers" / "torch_step.py", f"--model={model}"]
    command += [f"--mode={mode}", "--dtype=bfloat16", f"--device={settings.device}"]
    command += [*settings.sizes, *_length(settings, steps=50, warmup=5)]
    found = subprocess.run(
        [python, "-c", "import importlib.util as u; exit(not u.find_spec('torch'))"]
    )
    missing = f"{python} has no PyTorch (--peer_python)" if found.returncode else ""
    return Case([*command, *["--compile"] * compiled], unavailable=missing)


def _no_data(settings: Settings) -> str:
    """Return in words why CamVid cannot be trained on; empty if it can."""
    missing = "" if settings.manual_dir else "--manual_dir was not given: no CamVid"
    return missing or packages.missing(packages.TRAINING)


def _training_options(settings: Settings, network: str) -> list[str]:
    """Return data, weights and the user's overrides; nothing is downloaded."""
    options = [f"--config.data.manual_dir={settings.manual_dir}"]
    if settings.data_dir:
        options.append(f"--config.data.data_dir={settings.data_dir}")
    options.append(f"--config.model.pretrained={settings.weights.get(network, '')}")
    return [*options, *settings.overrides]
