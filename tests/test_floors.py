"""Imports point down only, between wings; inside a wing no two modules need each other."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vae_lab"

FLOORS = (
    "errors randomness distributions",
    "atomic hmc optimizers schedules networks wiring",
    "data model",
    "elbo",
    "estimators",
    "objectives measurement",
    "runs training",
    "callbacks figures",
    "jobs reports applications",
    "reproduction sweeps",
    "commands",
    "cli",
)
"""A wing may import those of lower floors, which stand above it here, and its own floor's none but itself.

Above all of them stand the doors: the package itself, which has the calls, and `__main__`.
"""
DOORS = ("", "__init__", "__main__")

FLOOR = {wing: floor for floor, wings in enumerate(FLOORS) for wing in wings.split()}
MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}


def imported(file: Path) -> Iterator[str]:
    """The modules of vae_lab that a file imports anywhere in it, the package's name left out; "" is its calls."""
    for node in ast.walk(ast.parse(file.read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file} has a relative import"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vae_lab":
            package = (node.module or "").removeprefix("vae_lab").lstrip(".")
            for alias in node.names:
                if alias.name == "__version__":
                    continue
                name = f"{package}.{alias.name}".lstrip(".")
                yield name if name in MODULES else package
        elif isinstance(node, ast.Import):
            yield from (
                name.removeprefix("vae_lab.") for name in (alias.name for alias in node.names) if "vae_lab." in name
            )


@cache
def imports() -> dict[str, set[str]]:
    """Module -> those that it imports; read when a test asks, as every worker of pytest collects this file."""
    return {name: set(imported(file)) - {""} for name, file in MODULES.items() if name not in DOORS}


def test_every_wing_stands_on_one_floor_and_the_house_has_few_entries() -> None:
    wings = {name.split(".")[0] for name in imports()}
    assert wings == set(FLOOR)
    assert len([entry for entry in PACKAGE.iterdir() if entry.name != "__pycache__"]) <= 30
    inside = {name: file for name, file in MODULES.items() if name not in DOORS}
    assert [name for name, file in inside.items() if not set(DOORS).isdisjoint(imported(file))] == []


@pytest.mark.parametrize("floor", range(len(FLOORS)), ids=FLOORS)
def test_floor_imports_lower_floors_only(floor: int) -> None:
    upward = [
        f"{name} imports {other}"
        for name, others in imports().items()
        if FLOOR[name.split(".")[0]] == floor
        for other in others
        if (wing := other.split(".")[0]) != name.split(".")[0] and FLOOR[wing] >= floor
    ]
    assert not upward


def test_no_two_modules_of_a_wing_need_each_other() -> None:
    for wing in FLOOR:
        graph = {
            name: {n for n in others if n.split(".")[0] == wing and n != wing} for name, others in imports().items()
        }
        inside = {name: others for name, others in graph.items() if name.split(".")[0] == wing}
        try:
            TopologicalSorter(inside).prepare()
        except CycleError as error:
            pytest.fail(f"{wing}: {' -> '.join(error.args[1])}")


FRAMEWORKS = {
    "pytorch_lightning": "training callbacks jobs",
    "lightning_fabric": "training callbacks jobs",
    "hydra": "wiring runs sweeps commands cli",
    "omegaconf": "wiring runs sweeps commands cli",
    "matplotlib": "figures reports commands",
    "jinja2": "reports",
    "optuna": "sweeps",
}
"""The wings that may know a framework: the core knows PyTorch alone."""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_framework_is_known_to_few_wings(framework: str) -> None:
    wings = {
        name.split(".")[0]
        for name, file in MODULES.items()
        if name not in DOORS
        for module in named_in(file)
        if module.split(".")[0] == framework
    }
    assert wings and wings <= set(FRAMEWORKS[framework].split())


def test_only_build_instantiates() -> None:
    for name, file in MODULES.items():
        for module in named_in(file):
            is_maker = f"{module}.".startswith(("hydra.utils.", "hydra._internal.instantiate."))
            assert name == "wiring.build" or not is_maker, f"{name} imports {module}"


def named_in(file: Path) -> Iterator[str]:
    """Everything that a file imports anywhere in it, by its full name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_concrete_parts_and_commands_are_named_by_strings_alone() -> None:
    named = (
        "networks.mlp",
        "networks.conv",
        "objectives.",
        "estimators.",
        "data.",
        "callbacks.image_grid",
        "callbacks.progress",
    )
    shared = (
        "objectives.base",
        "estimators.base",
        "estimators.pareto",
        "estimators.grids",
        "data.arrays",
        "data.files",
        "data.image_grids",
    )
    for name, others in imports().items():
        for other in others:
            if other.startswith(named) and other not in shared:
                assert name.split(".")[0] == other.split(".")[0], f"{name} imports {other}, which YAML names"
            if other.startswith("commands.") and name.split(".")[0] not in ("commands", "cli"):
                pytest.fail(f"{name} imports {other}: commands are imported by cli alone")


def test_torchvision_is_loaded_by_the_data_sets_alone_that_it_reads() -> None:
    """It takes 2 s, and with the files of MNIST on disk no command but a training needs it."""

    def done_at_import(parent: ast.AST) -> Iterator[ast.AST]:
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, ast.FunctionDef):
                yield node
                yield from done_at_import(node)

    loading = [
        name
        for name, file in MODULES.items()
        for node in done_at_import(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom) and "torchvision" in ast.unparse(node)
    ]
    assert loading == ["data.like_mnist"]
