"""Imports go only from higher to lower folders and modules of the package."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tempseg_jax"

# From the bottom up: a folder or module may import itself and those in its line.
MAY_IMPORT = {
    "types": "",
    "io": "",
    "data": "types io",
    "models": "types io",
    "precision": "",
    "objective": "types",
    "train_state": "",
    "optim": "types train_state",
    "discriminator_step": "types objective optim train_state",
    "hyperparameters": "types objective train_state",
    "segmenter_step": "types objective optim train_state discriminator_step "
    "hyperparameters",
    "steps": "types objective optim train_state discriminator_step hyperparameters "
    "segmenter_step",
    "gradient_accumulation": "types objective optim train_state hyperparameters steps",
    "jitted_step": "types objective train_state hyperparameters steps "
    "gradient_accumulation",
    "mesh": "types",
    "loop": "types train_state",
    "workdir": "io models precision train_state",
    "inference": "io data models precision workdir",
    "evaluation": "types io data objective train_state discriminator_step "
    "hyperparameters segmenter_step mesh workdir inference",
    "builders": "types data models precision objective train_state optim "
    "discriminator_step hyperparameters mesh workdir inference",
    "describe": "models builders",
    "resume": "data objective train_state mesh workdir builders",
    "callbacks": "types data objective train_state hyperparameters loop workdir "
    "inference evaluation builders",
    "train": "types io data train_state jitted_step mesh loop workdir inference "
    "evaluation builders resume callbacks",
    "evaluate": "io data mesh workdir inference evaluation builders",
    "sweep": "types io data models objective mesh workdir inference evaluation "
    "builders resume callbacks train",
    "aot": "hyperparameters jitted_step mesh builders",
    "cli": "inference",
    "main": "workdir inference describe train evaluate cli",
    "__init__": "inference",
}
# Modules that may import less than their line.
LEAVES = {
    "aot.cards": "",
    "aot.hlo": "",
    "aot.products": "aot.hlo",
    "aot.kernels": "aot.hlo aot.products",
    "aot.liveness": "aot.hlo aot.kernels",
    "evaluation.metrics": "types",
    "evaluation.calibration": "types",
    "evaluation.boundary_iou": "types",
    "data.image_reader": "",
    "inference.standalone": "data.image_reader",
    "inference.image_files": "data.image_reader io.folder_files",
    "io.folder_files": "",
    "cli.huge_pages": "",
    "cli.config_flag": "",
}
READS_THE_CONFIG = {
    "workdir",
    "builders",
    "callbacks",
    "describe",
    "train",
    "evaluate",
    "sweep",
    "aot",
    "main",
    "resume",
}


def modules():
    """Return {dotted name in the package: syntax tree}."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        trees[name] = ast.parse(path.read_text(), str(path))
    return trees


def imports(tree):
    """Yield the dotted names that a module imports, at the top or in functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports must be absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(tree):
    """Yield the modules of the package that a module imports."""
    for name in imports(tree):
        top, _, rest = name.partition(".")
        if top == "tempseg_jax":
            parts = rest.split(".")
            while parts and not exists(parts):
                parts.pop()  # a name within a module
            yield ".".join(parts) or "__init__"


def exists(parts):
    """Return whether the package has this module or folder."""
    path = PACKAGE.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").exists()


def is_below(name, parents):
    return any(name == x or name.startswith(f"{x}.") for x in parents)


def line_of(module):
    """Return the key of a module in the table."""
    return module.split(".")[0]


MODULES = modules()


def test_each_line_of_the_table_allows_only_lines_above_it():
    above = []
    for line, allowed in MAY_IMPORT.items():
        above.append(line)
        assert set(allowed.split()) <= set(above), line
        assert line not in allowed.split(), line


def test_every_module_has_a_line_in_the_table():
    assert {line_of(module) for module in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_table(module):
    line = line_of(module)
    allowed = {*MAY_IMPORT[line].split()} | (
        {line} if (PACKAGE / line).is_dir() else set()
    )
    assert {line_of(name) for name in own_imports(MODULES[module])} <= allowed


@pytest.mark.parametrize("module", LEAVES)
def test_a_leaf_imports_no_more_of_the_package_than_its_entry(module):
    assert set(own_imports(MODULES[module])) <= {*LEAVES[module].split()}


def test_there_is_no_import_cycle():
    graph = {
        module: set(own_imports(tree)) - {module} for module, tree in MODULES.items()
    }
    for package in [name for name in graph if name.endswith(".__init__")]:
        # `from tempseg_jax.models import x` reads models/__init__.py.
        folder = package.removesuffix(".__init__")
        graph[folder] = graph.pop(package) - {folder}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_only_the_listed_modules_read_the_config():
    readers = {
        line_of(module)
        for module, tree in MODULES.items()
        if any(name.startswith("ml_collections") for name in imports(tree))
    }
    assert readers <= READS_THE_CONFIG


def test_the_core_does_not_log_open_files_or_compile():
    forbidden = ("absl", "pathlib", "os", "time", "sys", "orbax", "tempseg_jax.data")
    for module in (
        "objective.adversaries",
        "objective.balanced_loss",
        "objective.distillation",
        "objective.losses",
        "objective.semi_supervised",
        "evaluation.metrics",
        "discriminator_step",
        "hyperparameters",
        "optim",
        "precision",
        "builders.schedules",
        "segmenter_step",
        "steps",
    ):
        names = set(imports(MODULES[module]))
        assert not [n for n in names if is_below(n, forbidden)], module
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(MODULES[module])
            if isinstance(node, ast.Call)
        }
        assert not {"jax.jit", "print", "open"} & calls, module


def test_tensorflow_and_pytorch_are_not_imported():
    for module, tree in MODULES.items():
        tops = {name.split(".")[0] for name in imports(tree)}
        assert not {"tensorflow", "torch", "torchvision"} & tops, module


def test_annotations_are_not_postponed_because_the_shape_check_needs_them():
    for module, tree in MODULES.items():
        assert "__future__.annotations" not in set(imports(tree)), module
