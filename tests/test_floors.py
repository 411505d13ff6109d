"""Imports point down only: every module stands on a floor and may import from lower ones."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vae_lab"

FLOORS = (
    # 0: what anybody may use, then the parts that know nothing of a VAE
    "errors randomness atomic marks config_folders provenance terminal",
    "sharing",
    "matmul",
    "plain_command",
    "distributions hmc optimizers schedules networks.choices data.arrays data.files curve events figures.grids",
    "run_directory",
    "networks.initialization networks.mlp networks.conv",
    "data.digits data.frey_face data.image_folder data.mnist data.npz",
    # 1
    "networks.heads",
    "model",
    # 2
    "elbo measurement",
    # 3
    "objectives.base estimators.base",
    "objectives.* estimators.*",
    "marginal_likelihood predictive_bound",
    # 4
    "running_means cuda_graph compiled",
    "lit_module",
    "callbacks.*",
    # 5
    "build",
    "runs",
    "continuation assembly children",
    "compose jobs",
    # 6
    "listing.small_files",
    "listing.entries",
    "listing.keys",
    "listing.conditions listing.measured listing.table",
    "listing.columns listing.groups listing.formats",
    "listing.run_rows listing.group_rows",
    "runs_command overview",
    "figures.base figures.canvas figures.estimates figures.run_facts figures.published",
    "figures.animation figures.bound_points figures.decoded figures.posterior_pictures figures.run_pictures",
    "figures.section5",
    "figures.*",
    "train evaluate plot figure",
    "benchmarks.comparisons benchmarks.conditions",
    "benchmarks.sides",
    "benchmarks.results benchmarks.catalogue benchmarks.lab benchmarks.matrix_products benchmarks.jax_epoch",
    "benchmarks.pythae_training",
    "benchmarks.hand_written",
    "benchmarks.networks benchmarks.data_loader",
    "benchmarks.estimators benchmarks.hand_written_objectives benchmarks.processes",
    "benchmarks.training_cases benchmarks.estimation_cases benchmarks.process_cases benchmarks.long_runs",
    "bench",
    "claims job_report pages.page speed step_sizes",
    "pages.run_parts",
    "pages.run_page pages.comparison",
    "compare pages.sweep_page",
    "report",
    "reproduction_plan verify",
    "reproduction_page",
    "reproduce",
    # 7
    "command_help explanations",
    "sweep_points sweep_resources search sweep_job",
    "sweep_launcher",
    "sweep",
    "task",
    "cli",
    "benchmarks.child",
    "__main__",
)
"""From the lowest up; a module may import from every earlier line, never from its own."""

FIRST_ALLOWED = {"pytorch_lightning": "running_means", "hydra": "build", "matplotlib": "figures.canvas"}
"""Frameworks and the lowest floor that may know them."""

NEVER = {
    "torch": "errors atomic terminal plain_command run_directory config_folders command_help explanations task cli "
    "__main__ runs_command listing.small_files listing.entries listing.keys listing.conditions listing.measured "
    "listing.table listing.columns listing.groups listing.formats listing.run_rows listing.group_rows",
    "pytorch_lightning": "command_help explanations task cli __main__",
}
"""What must not be imported where `vae-lab --help` or `vae-lab runs` would have to wait for it."""

PARTS = "data.digits data.frey_face data.image_folder data.mnist data.npz networks.mlp networks.conv"
"""Parts, with the objectives and estimators, that YAML alone names."""


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {module_name(file): ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py") if file.stem != "__init__"}


def floor(module: str) -> int | None:
    """The line of `FLOORS` that names the module, by its full name rather than a pattern if both do."""
    for exact in (True, False):
        for i, line in enumerate(FLOORS):
            if any(module == name if exact else fnmatch(module, name) for name in line.split()):
                return i
    return None


def imported(tree: ast.AST) -> set[str]:
    """Everything that is imported, anywhere in a module; vae_lab's own modules without the package's name."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written with their full path"
            package = node.module or ""
            for alias in node.names:
                inside = f"{package}.{alias.name}".removeprefix("vae_lab.")
                names.add(f"vae_lab.{inside}" if inside in MODULES else package)
    return names


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_stands_on_a_floor_and_imports_from_lower_ones(module: str) -> None:
    own = floor(module)
    assert own is not None, f"vae_lab/{module} stands on no floor: add it to FLOORS"
    for name in imported(MODULES[module]):
        if name.startswith("vae_lab."):
            other = name.removeprefix("vae_lab.")
            below = floor(other)
            assert below is not None and below < own, f"{module} imports {other}, which is not below it"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_knows_only_the_frameworks_of_its_floor(module: str) -> None:
    packages = {name.split(".")[0] for name in imported(MODULES[module])}
    own = floor(module)
    for framework, lowest in FIRST_ALLOWED.items():
        start = floor(lowest)
        assert own is not None and start is not None
        assert own >= start or framework not in packages, f"{module} imports {framework}"
    for framework, modules in NEVER.items():
        assert module not in modules.split() or framework not in packages, f"{module} imports {framework}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_concrete_parts_are_imported_by_nobody(module: str) -> None:
    for name in imported(MODULES[module]):
        part = name.removeprefix("vae_lab.")
        assert part not in PARTS.split(), f"{module} imports {part}: YAML names it, build.py makes it"
        folder, _, last = part.rpartition(".")
        assert folder not in ("objectives", "estimators") or last == "base", f"{module} imports {part}"


def test_only_build_instantiates() -> None:
    for module, tree in MODULES.items():
        called = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in ("hydra.utils", "hydra._internal.instantiate")
            for alias in node.names
        }
        assert module == "build" or not called & {"instantiate", "call"}, f"{module} imports instantiate"
