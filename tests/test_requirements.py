"""Every library that the package or a script imports is declared."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = {"tempseg_jax", "configs"}
PEER = {"torch"}  # these scripts run where PyTorch is installed


def normalized(requirement):
    name = re.match(r"[\w.-]+", requirement)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def declared():
    """Return the names in requirements.txt and in the extras for users."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines += [*extras["demo"], *extras["onnx"], *extras["wandb"]]
    return {normalized(line) for line in lines if line and not line.startswith("#")}


def imported():
    """Return the top-level names that the package, configs and scripts import."""
    names = set()
    folders = ("tempseg_jax", "configs", "scripts")
    paths = [path for x in folders for path in (ROOT / x).rglob("*.py")]
    scripts = {path.stem for path in (ROOT / "scripts").rglob("*")}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    return names - OURS - PEER - scripts - sys.stdlib_module_names


def test_every_imported_library_is_declared():
    packages = importlib.metadata.packages_distributions()
    for name in imported():
        # A library of an extra may not be installed; its package has its own name.
        candidates = {normalized(x) for x in packages.get(name, [name])}
        assert candidates & declared(), name
