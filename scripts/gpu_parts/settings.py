"""The options of `gpu_day.py`, and what every case takes from them."""

import dataclasses
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tempseg_jax.aot import cards


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
    weights: Mapping[str, Path]  # of loop and training, by network
    overrides: tuple[str, ...]  # of the same, --config.…

    @property
    def sizes(self) -> list[str]:
        """Image size and batch size: the paper's, or tiny ones."""
        return ["--size=32", "--batch=2"] if self.tiny else ["--size=416", "--batch=16"]

    @property
    def platform(self) -> dict[str, str]:
        """Environment in which JAX fails without a GPU, instead of using the CPU."""
        if self.device == "cpu":
            return {}
        return {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS") or "cuda"}

    @property
    def env(self) -> dict[str, str]:
        """The platform, and a compilation cache that all cases share."""
        return self.platform | {"JAX_COMPILATION_CACHE_DIR": str(self.out / "compiled")}


def card_of_this_machine() -> str:
    """Return the key in `CARDS` of the first GPU; h100 for one that is not there."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "h100"
    return cards.key_of(found.stdout.partition("\n")[0].strip()) or "h100"
