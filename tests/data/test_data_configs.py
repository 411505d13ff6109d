import os
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LIKELIHOODS = {
    "mnist": "bernoulli",
    "frey_face": "gaussian",
    "digits": "bernoulli",
    "npz": "bernoulli",
    "image_folder": "bernoulli",
    **dict.fromkeys(("fashion_mnist", "kmnist", "emnist"), "bernoulli"),
}
MANDATORY = {"npz": ["data.path=a.npz"], "image_folder": ["data.path=a", "data.size=[6,4]"]}


@pytest.fixture
def composed(tmp_path: Path) -> Any:
    """Composes `data` with likelihoods that are only names."""
    (tmp_path / "likelihood").mkdir()
    for name in ("bernoulli", "gaussian"):
        (tmp_path / "likelihood" / f"{name}.yaml").write_text(f"name: {name}\n")
    (tmp_path / "data").symlink_to(CONFIGS / "data")
    (tmp_path / "main.yaml").write_text("defaults: [likelihood: bernoulli, data: digits, _self_]\n")

    def compose_with(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return compose("main", list(overrides))

    return compose_with


def test_every_data_config_is_tested():
    assert {path.stem for path in (CONFIGS / "data").glob("*.yaml")} == set(LIKELIHOODS)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_data_configs_instantiate_and_select_their_likelihood(composed, name):
    config = composed(f"data={name}", *MANDATORY.get(name, []))
    assert config.likelihood.name == LIKELIHOODS[name]
    data = instantiate(config.data, _convert_="all")
    assert data.batch_size == 100 and data.binarization == "none" and data.train_size is None


def test_the_command_line_wins(composed):
    assert composed("data=frey_face", "likelihood=bernoulli").likelihood.name == "bernoulli"


@pytest.mark.parametrize("key", ["npz", "image_folder"])
def test_own_data_must_be_named(composed, key):
    with pytest.raises(MissingMandatoryValue, match=r"data\.path"):
        _ = composed(f"data={key}").data.path


@pytest.mark.parametrize("name", ["mnist", "frey_face"])
def test_the_root_is_the_environments_else_a_cache_folder(composed, name, monkeypatch):
    monkeypatch.setitem(os.environ, "VAE_LAB_DATA", "/somewhere")
    assert composed(f"data={name}").data.root == "/somewhere"
    monkeypatch.delitem(os.environ, "VAE_LAB_DATA")
    assert composed(f"data={name}").data.root == "~/.cache/vae_lab"
