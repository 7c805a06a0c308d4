"""The cases of each part: which commands are run, with which options."""

import dataclasses
import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from gpu_parts.runner import Case

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

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")

EXCLUDE = "--xla_gpu_exclude_nondeterministic_ops=true"
"""Only deterministic operations, chosen by autotuning (openxla/xla #12520)."""

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""The same, without autotuning."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of the command."""

    out: Path
    minutes: float
    parts: tuple[str, ...]
    manual_dir: Path | None  # CamVid
    data_dir: Path | None
    peer_python: str
    card: str
    device: str  # "cuda" or "cpu"
    tiny: bool
    overrides: tuple[str, ...]  # of training, --config.…

    @property
    def sizes(self) -> list[str]:
        """Image size and batch size: the paper's, or tiny ones."""
        return ["--size=32", "--batch=2"] if self.tiny else ["--size=416", "--batch=16"]

    @property
    def cache(self) -> dict[str, str]:
        """Environment with a compilation cache that all cases share."""
        return {"JAX_COMPILATION_CACHE_DIR": str(self.out / "compiled")}


def precisions(settings: Settings) -> dict[str, Case]:
    """Every precision trains a few steps of each network; all metrics are finite."""
    return {
        f"{model}-{dtype}": Case(
            _benchmark(settings, model, "adversarial", dtype, steps=5, warmup=1),
            settings.cache,
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
            [sys.executable, script, f"--model={model}", *options], settings.cache
        )
        for model in NETWORKS
    }


def step_times(settings: Settings) -> dict[str, Case]:
    """Ours, and PyTorch eager and compiled, one after the other for each network."""
    result = {}
    for model in NETWORKS:
        for mode in MODES:
            command = _benchmark(settings, model, mode, "bfloat16", steps=50, warmup=5)
            result[f"{model}-{mode}"] = Case(command, settings.cache)
            for kind in ("eager", "compiled"):
                result[f"{model}-{mode}-torch-{kind}"] = _peer(
                    settings, model, mode, compiled=kind == "compiled"
                )
    return result


def flags(settings: Settings) -> dict[str, Case]:
    """The adversarial step with one of XLA's flags at a time."""
    return {
        f"{model}-{name}": Case(
            _benchmark(settings, model, "adversarial", "bfloat16", steps=25, warmup=3),
            # XLA's cache of autotuning does not know of flags.
            settings.cache
            | {"XLA_FLAGS": flag, "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none"},
        )
        for model in NETWORKS
        for name, flag in FLAGS.items()
    }


def memory(settings: Settings) -> dict[str, Case]:
    """The memory of a step as compiled, and as the allocator measures it.

    The measurement finds its program in the compilation cache if `step_times` ran, and
    its peak then has no memory in which XLA tried out algorithms.
    """
    result, missing = {}, ""
    if not any(map(importlib.util.find_spec, PLUGINS)):
        missing = "compiling for a card needs the extra cuda-compile of the project"
    for model in NETWORKS:
        command = [sys.executable, SCRIPTS / "benchmark.py", "compile"]
        command += [f"--model={model}", "--mode=adversarial", "--dtype=bfloat16"]
        command += [*settings.sizes, f"--card={settings.card}"]
        result[f"{model}-compiled"] = Case(command, unavailable=missing)
        result[f"{model}-measured"] = Case(
            _benchmark(settings, model, "adversarial", "bfloat16", steps=5, warmup=1),
            settings.cache,
        )
    return result


def profile(settings: Settings) -> dict[str, Case]:
    """A profiler trace of a few steps, in OUT/trace, for TensorBoard or xprof."""
    result = {}
    for model in NETWORKS:
        command = _benchmark(
            settings, model, "adversarial", "bfloat16", steps=25, warmup=3
        )
        command.append(f"--profile={settings.out / 'trace' / model}")
        result[model] = Case(command, settings.cache)
    return result


def loop(settings: Settings) -> dict[str, Case]:
    """Images per second of the training loop on CamVid, and its wait for data."""
    script = SCRIPTS / "gpu_parts" / "loop_speed.py"
    names = ("fcn_camvid", "resnet50_camvid")
    missing = "" if settings.manual_dir else "--manual_dir was not given: no CamVid"
    result = {}
    for name in (*names, "demo") if settings.tiny else names:
        command = [sys.executable, script, f"--config=configs/{name}.py"]
        if name != "demo":
            command += _training_options(settings)
        if settings.tiny:
            command += ["--config.steps=4", "--config.log_every_steps=2"]
            command += ["--config.data.crop_size=32", "--config.data.batch_size=2"]
            command.append("--config.model.width=0.05")
        else:
            command += ["--config.steps=300", "--config.log_every_steps=50"]
        command.append(f"--workdir={settings.out / 'work' / _folder(name, command)}")
        result[name] = Case(
            command, settings.cache, unavailable="" if name == "demo" else missing
        )
    return result


def determinism(settings: Settings) -> dict[str, Case]:
    """Whether a resumed run equals an uninterrupted one bit for bit."""
    script = SCRIPTS / "gpu_parts" / "resume_bitwise.py"
    tables = settings.out / "autotune"
    result = {}
    for name, flag, tuned in (
        ("default", "", False),
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
        result[name] = Case(command, {"XLA_FLAGS": flag})
    return result


def training(settings: Settings) -> dict[str, Case]:
    """Cells of the ablation study on CamVid, one after the other, each resumable."""
    missing = "" if settings.manual_dir else "--manual_dir was not given: no CamVid"
    result = {}
    for cell in ("baseline", "adversarial", "tg0.5", "tg2"):  # table 3
        command = [sys.executable, SCRIPTS / "sweep.py", "--table=3", "--seeds=1"]
        command += [f"--config={ROOT / 'configs' / 'resnet50_camvid.py'}"]
        command += _training_options(settings)
        if settings.tiny:
            command += ["--config.steps=2", "--config.data.crop_size=32"]
            command += ["--config.data.batch_size=2", "--config.model.width=0.05"]
            command += ["--train_images=2"]
        command.append(f"--workdir={settings.out / _folder('sweep', command)}")
        command.append(f"--cells={cell}")
        result[cell] = Case(command, settings.cache, unavailable=missing, resumes=True)
    return result


def _folder(name: str, command: list[str | Path]) -> str:
    """Return a name for a workdir, which belongs to one config."""
    options = json.dumps(Case(command).options, sort_keys=True)
    return f"{name}-{hashlib.sha256(options.encode()).hexdigest()[:8]}"


def _benchmark(
    settings: Settings, model: str, mode: str, dtype: str, *, steps: int, warmup: int
) -> list[str | Path]:
    command = [sys.executable, SCRIPTS / "benchmark.py", "train", f"--model={model}"]
    command += [f"--mode={mode}", f"--dtype={dtype}", *settings.sizes]
    return command + _length(settings, steps=steps, warmup=warmup)


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


def _training_options(settings: Settings) -> list[str]:
    """Return the data and the user's overrides; nothing pretrained is downloaded."""
    options = [f"--config.data.manual_dir={settings.manual_dir}"]
    if settings.data_dir:
        options.append(f"--config.data.data_dir={settings.data_dir}")
    return [*options, "--config.model.pretrained=", *settings.overrides]
