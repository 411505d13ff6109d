"""Every YAML says what it is, composes, and makes the object it describes."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from vae_lab.cli import COMMANDS
from vae_lab.commands.help import command_help
from vae_lab.wiring import build
from vae_lab.wiring.dotted import leaves
from vae_lab.wiring.folders import choices, groups, headline, opening_comment, package_configs
from vae_lab.wiring.keys import CommandKeys

WITH_A_CONFIG = [name for name, command in COMMANDS.items() if not command.plain]
FOLDER = package_configs()
CHOICES = [(group, name) for group in groups([FOLDER]) for name in choices([FOLDER], group)]
GIVEN = {
    "npz": ["data.path=images.npz"],
    "image_folder": ["data.path=pictures", "data.size=[8,8]"],
    "cosine": ["schedule.T_max=1000"],
    "stages": ["schedule.milestones=[1000,2000]"],
}
"""What a choice leaves to the user."""


@cache
def compose_command(command: str, *overrides: str) -> dict[str, Any]:
    """The resolved config of a command line; to be read only."""
    with initialize_config_dir(config_dir=str(FOLDER), version_base="1.3"):
        config = OmegaConf.to_container(compose(command, list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@pytest.fixture(autouse=True)
def fresh_hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


def command_of(group: str) -> str:
    """The command whose defaults list holds the group."""
    outermost = group.split("/")[0]
    for command in WITH_A_CONFIG:
        if re.search(rf"^  - (optional )?{outermost}:", (FOLDER / f"{command}.yaml").read_text(), re.MULTILINE):
            return command
    raise AssertionError(f"no command uses the group {group!r}")


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.yaml")), ids=lambda f: f.relative_to(FOLDER).as_posix())
def test_yaml_opens_with_what_it_is_and_its_command(file: Path) -> None:
    lines = list(opening_comment(file))
    assert headline(file).endswith((".", ":")), "the first lines say, in a sentence, what this is"
    assert any("vae-lab " in line for line in lines), "a line shows the command"


@pytest.mark.parametrize("command", WITH_A_CONFIG)
def test_command_composes_and_leaves_nothing_of_hydra_in_the_working_folder(command: str) -> None:
    with initialize_config_dir(config_dir=str(FOLDER), version_base="1.3"):
        config = compose(command, return_hydra_config=True)
    hydra = config.hydra
    assert (hydra.run.dir, hydra.output_subdir, hydra.job.chdir) == (".", None, False)
    assert (hydra.sweep.dir, hydra.sweep.subdir) == ("outputs/sweeps", ".")
    for logging in (hydra.job_logging, hydra.hydra_logging):
        assert list(logging.root.handlers) == ["console"]
        assert logging.handlers.console.stream == "ext://sys.stderr"


INSTANTIATED = (
    "data",
    "model",
    "likelihood",
    "initialization",
    "objective",
    "optimizer",
    "schedule",
    "estimator",
)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_choice_composes_without_open_references_and_its_constructor_accepts_it(group: str, name: str) -> None:
    command = command_of(group)
    required = {"evaluate": ["run=runs/a"], "plot": ["run=runs/a"]}.get(command, [])
    overrides = [f"{group}={name}", *required, *GIVEN.get(name, [])]
    config = compose_command(command, *overrides)
    assert "???" not in str(config)
    keys = CommandKeys([FOLDER], command, overrides)
    known = keys.keys
    composed = [key for key, _ in leaves(config) if "._" not in key]
    assert [key for key in composed if key not in known and not keys.decides_elsewhere(key)] == []
    if group != "sweep":  # of which all choices are read
        assert {key for key, about in known.items() if not about.is_section} <= {*composed, *sections(config)}
    if group in INSTANTIATED:
        given = {"image_shape": (1, 8, 8)} if group == "model" else {}
        assert build.instantiate(config[group], group, **given) is not None


def sections(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys that hold others."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield f"{prefix}{name}"
            yield from sections(value, f"{prefix}{name}.")


@pytest.mark.parametrize("command", WITH_A_CONFIG)
def test_every_key_of_a_command_has_a_comment_and_help_shows_it(command: str) -> None:
    keys = CommandKeys([FOLDER], command)
    shown = " ".join(command_help(command, COMMANDS[command], keys).split())
    for key, about in ((key, keys.keys[key]) for key in keys.of_group[""]):
        if not about.is_section:
            assert about.comment or key.startswith("evaluation.estimator."), f"{command}.yaml says nothing about {key}"
            assert f" {key}=" in shown and about.comment in shown
    assert ("model=mlp,conv" in shown) == (command == "train"), "an example of another command"


def test_comments_and_values_are_those_of_the_chosen_files() -> None:
    keys = CommandKeys([FOLDER], "train", ["experiment=mnist", "model=conv"])
    assert keys.chosen["data"] == ["mnist"] and keys.chosen["schedule"] == ["warmup_cosine"]
    assert keys.keys["max_samples"].value == "1000000" and keys.keys["max_samples"].comment.startswith("the budget, in")
    assert keys.keys["trainer.max_epochs"].comment.startswith("passes over the training split")
    assert keys.keys["model.encoder.channels"].value == "[32, 64]"
    assert CommandKeys([FOLDER], "audit").keys["estimator.num_chains"].value == "2", "its own file has the last word"
    both = CommandKeys([FOLDER], "train", ["sweep=latent_dims"]).keys
    assert {"data.root", "model.encoder.channels", "model.encoder.hidden"} <= set(both)


@pytest.mark.parametrize("name", choices([FOLDER], "data"))
def test_data_choice_selects_its_likelihood_and_the_command_line_wins(name: str) -> None:
    expected = "GaussianLikelihood" if name == "frey_face" else "BernoulliLikelihood"
    given = [f"data={name}", *GIVEN.get(name, [])]
    assert compose_command("train", *given)["likelihood"]["_target_"].endswith(expected)
    for likelihood, target in (("gaussian", "GaussianLikelihood"), ("bernoulli", "BernoulliLikelihood")):
        config = compose_command("train", *given, f"likelihood={likelihood}")
        assert config["likelihood"]["_target_"].endswith(target)
        assert config["model"]["likelihood"] == config["likelihood"]


@pytest.mark.parametrize(
    ("experiment", "hidden", "std"), [("mnist_paper", [500], 0.01), ("frey_face_paper", [200], 0.1)]
)
def test_paper_experiments_have_the_settings_of_paper_and_authors_code(experiment: str, hidden: list[int], std: float):
    config = dict(leaves(compose_command("train", f"experiment={experiment}")))
    expected = {
        "model.encoder.hidden": hidden,
        "model.log_variance_factor": 0.1,
        "initialization.std": std,
        "optimizer.lr": 0.02,
        "optimizer.warmup_steps": 100,
        "data.batch_size": 100,
        "objective.num_samples": 1,
        "parameter_prior": True,
    }
    assert {key: config[key] for key in expected} == expected


def test_methods_of_figure_3_differ_as_they_were_chosen() -> None:
    figure = compose_command("figure", "figure=figure3")["figure"]
    assert figure["methods"] == {
        "aevb": ["objective=aevb", "initialization.std=0.1"],
        "wake_sleep": ["objective=wake_sleep", "initialization.std=0.1"],
        "mcem": ["objective=monte_carlo_em", "optimizer.lr=0.1", "optimizer.warmup_steps=10"],
    }


@pytest.mark.parametrize("name", choices([FOLDER], "experiment"))
def test_smoke_wins_over_an_experiment_and_leaves_every_objective_a_step(name: str) -> None:
    config = compose_command("train", f"experiment={name}", "smoke=on")
    train_size = config["data"]["train_size"]
    assert config["trainer"]["max_epochs"] is None
    assert config["data"]["batch_size"] <= train_size
    objective = compose_command("train", "objective=monte_carlo_em")["objective"]
    assert config["max_samples"] >= train_size * (objective["num_leapfrog"] + objective["num_updates"])
