"""From config to object: the constructor's signature is the schema, and a stranger's names are refused."""

import functools
import sys
from dataclasses import dataclass

import pytest
import torch
from omegaconf import OmegaConf

from vae_lab.data.digits import Digits
from vae_lab.errors import ConfigError, UntrustedTarget, require_integer
from vae_lab.networks.mlp import MLPEncoder
from vae_lab.wiring.build import foreign_packages, instantiate, of_type, refuse_untrusted, settings

DIGITS = {
    "_target_": "vae_lab.data.digits.Digits",
    "batch_size": 100,
    "binarization": "none",
    "train_size": None,
    "split_seed": 0,
}
ENCODER = {
    "_target_": "vae_lab.networks.mlp.MLPEncoder",
    "_partial_": True,
    "hidden": [8],
    "activation": "tanh",
}
MODEL = {
    "_target_": "vae_lab.model.VAE",
    "latent_dim": 2,
    "encoder": ENCODER,
    "decoder": ENCODER | {"_target_": "vae_lab.networks.mlp.MLPDecoder"},
    "likelihood": {"_target_": "vae_lab.networks.heads.BernoulliLikelihood", "_partial_": True},
    "initialization": {"_target_": "vae_lab.networks.initialization.PyTorchDefault"},
}


def test_a_config_becomes_the_object():
    data = instantiate(DIGITS, "data")
    assert isinstance(data, Digits) and data.train_size is None and data.split_seed == 0


def test_a_partial_stays_open_and_nested_ones_reach_their_owner():
    encoder = instantiate(ENCODER, "model.encoder")
    assert callable(encoder) and isinstance(encoder((1, 8, 8)), MLPEncoder)
    model = instantiate(MODEL, "model", image_shape=(1, 8, 8))
    assert model.posterior(torch.zeros(3, 1, 8, 8)).mean.shape == (3, 2)
    optimizer = instantiate({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}, "optimizer")
    assert optimizer(list(model.parameters())).param_groups[0]["lr"] == 0.5


def test_a_whole_float_becomes_the_integer_that_is_asked_for():
    assert instantiate(DIGITS | {"batch_size": 1e2}, "data").batch_size == 100
    assert instantiate(MODEL | {"latent_dim": 2.0}, "model", image_shape=(1, 8, 8)).latent_dim == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batchsize": 5}, r"data\.batchsize is no setting of Digits: did you mean 'batch_size'"),
        ({"batch_size": "many"}, r"data\.batch_size must be an integer, got 'many'"),
        ({"batch_size": True}, r"data\.batch_size must be an integer, got true"),
        ({"batch_size": 2.5}, r"data\.batch_size must be an integer, got 2\.5"),
        ({"batch_size": None}, r"data\.batch_size must be an integer, got null"),
        ({"train_size": "x"}, r"data\.train_size must be an integer or null, got 'x'"),
        ({"batch_size": 0}, r"data\.batch_size must be an integer >= 1, got 0"),
        ({"_target_": "vae_lab.data.digits.Digit"}, r"data\._target_ must name an importable class.*Digit'"),
        ({"_args_": [1]}, r"data\._args_ is refused: name each setting of Digits"),
        ({"_recursive_": False}, r"data\._recursive_ is refused"),
        ({"_target_": "no_such_package.Data"}, r"data\._target_ must name an importable class"),
        ({"_target_": "vae_lab.data.digits.NUM_TEST"}, r"data\._target_ must name a class.*is a int"),
    ],
)
def test_a_mistake_is_refused_by_its_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        instantiate(DIGITS | changes, "data")


def test_a_missing_key_and_a_missing_class_are_refused(caplog):
    without = {key: value for key, value in DIGITS.items() if key != "split_seed"}
    with pytest.raises(ConfigError, match=r"data\.split_seed is missing: Digits needs it; add data\.split_seed=VALUE"):
        instantiate(without, "data")
    with pytest.raises(ConfigError, match=r"data must name its class in data\._target_"):
        instantiate({"batch_size": 1}, "data")
    with pytest.raises(ConfigError, match="Digit"):
        instantiate({**DIGITS, "_target_": "vae_lab.data.digits.Digit"}, "data")
    assert not caplog.records  # hydra.utils would log the mistake once more


def test_mistakes_in_nested_partials_are_refused_by_their_whole_key():
    for changes, message in [
        ({"hiden": [3]}, r"model\.encoder\.hiden is no setting of MLPEncoder: did you mean 'hidden'"),
        ({"hidden": "big"}, r"model\.encoder\.hidden must be a list such as \[1,2\], got 'big'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            instantiate(MODEL | {"encoder": ENCODER | changes}, "model", image_shape=(1, 8, 8))


def test_arguments_without_names_are_given_to_what_takes_any_number_of_them():
    layer = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    assert len(instantiate({"_target_": "torch.nn.Sequential", "_args_": [layer, layer]}, "model")) == 2
    with pytest.raises(ConfigError, match=r"model\.encoder\._args_ is refused: name each setting of MLPEncoder"):
        instantiate(MODEL | {"encoder": ENCODER | {"_args_": [3]}}, "model", image_shape=(1, 8, 8))


@pytest.mark.parametrize("hidden", [[3, "big"], [3, 4.5], [True, 3], [[3], 3], [3, None]])
def test_every_item_of_a_list_has_its_type(hidden):
    for _ in range(5):  # a check of one item by chance would let some pass
        with pytest.raises(ConfigError, match=r"model\.encoder\.hidden must be a list such as \[1,2\], got \["):
            instantiate(MODEL | {"encoder": ENCODER | {"hidden": hidden}}, "model", image_shape=(1, 8, 8))


@pytest.mark.parametrize("value", [{"a": 1, "b": "x"}, {"a": "x", "b": 1}, {"a": 1, 2: 3}])
def test_every_entry_of_a_mapping_has_its_type(value):
    assert of_type({"a": 1, "b": 2}, dict[str, int], "key") == {"a": 1, "b": 2}
    assert of_type({"a": [1]}, dict[str, list[int]] | None, "key") == {"a": [1]}
    for _ in range(5):
        with pytest.raises(ConfigError, match="key must be"):
            of_type(value, dict[str, int], "key")


def test_an_unknown_setting_of_a_framework_is_refused_too():
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate is no setting of Adam"):
        instantiate({"_target_": "torch.optim.Adam", "_partial_": True, "learning_rate": 1}, "optimizer")


def test_an_error_that_is_no_mistake_of_the_config_keeps_its_type(monkeypatch):
    def broken(self, **_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Digits, "__init__", functools.wraps(Digits.__init__)(broken))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        instantiate(DIGITS, "data")


# ---- keys that belong to no component ----


@dataclass(frozen=True)
class Keys:
    count: int
    rate: float | None
    names: list[str]
    is_loud: bool = False

    def __post_init__(self) -> None:
        require_integer("count", self.count, minimum=1)


KEYS = {"count": 3, "rate": 1, "names": ["a"], "is_loud": True}


def test_settings_are_the_keys_of_the_dataclass_and_others_are_left_alone():
    assert settings(Keys, KEYS | {"data": DIGITS, "own": object()}) == Keys(3, 1, ["a"], True)
    assert settings(Keys, {"count": 3.0, "rate": None, "names": []}) == Keys(3, None, [])
    assert settings(Keys, {"count": 3, "rate": None, "names": "a"}) == Keys(3, None, ["a"])
    composed = OmegaConf.create({"count": "${other}", "other": 4, "rate": 0.5, "names": ["${other}b"]})
    assert settings(Keys, composed) == Keys(4, 0.5, ["4b"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, r"count must be an integer >= 1, got 0"),
        ({"count": None}, r"group\.count must be an integer, got null"),
        ({"count": True}, r"group\.count must be an integer, got true"),
        ({"rate": "fast"}, r"group\.rate must be a number or null, got 'fast'"),
        ({"rate": False}, r"group\.rate must be a number or null, got false"),
        ({"names": 3}, r"group\.names must be a list such as \[a,b\], got 3"),
        ({"is_loud": 1}, r"group\.is_loud must be true or false, got 1"),
    ],
)
def test_wrong_setting_is_refused_by_its_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(Keys, KEYS | changes, "group")


def test_missing_settings_are_named_together():
    with pytest.raises(ConfigError, match=r"group\.count, group\.names must be given"):
        settings(Keys, {"rate": 1}, "group")


# ---- a stranger's config ----


def test_the_labs_own_parts_and_the_frameworks_are_trusted(finished_run):
    refuse_untrusted(finished_run.read_config(), [])
    named = {
        "model": {"encoder": {"_target_": "torch.nn.Sequential"}, "decoder": [{"_target_": "torch.nn.ReLU"}]},
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True},
        "callbacks": {"rate": {"_target_": "pytorch_lightning.callbacks.LearningRateMonitor"}, "images": None},
        "logger": {"_target_": "pytorch_lightning.loggers.CSVLogger", "flush_logs_every_n_steps": 5},
        "data": {"_target_": "vae_lab.data.npz.NPZ", "path": "/any/place.npz"},
    }
    refuse_untrusted(named, [])
    assert foreign_packages(named) == []


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.hub.load",
        "torch.nn.parallel.distributed.os.system",
        "torch.nn.functional.relu",
        "torch.nn.modules.module.Tensor",
        "torch.nnx.Linear",
        "torch",
        "vae_lab.runs.load.load_run",
        "vae_lab.commands.train.train",
        "vae_lab.wiring.build.hydra_instantiate",
        "vae_lab.callbacks.checkpoint.os.system",
        "vae_lab.data.mnist.Path",
        "vae_lab.models.VAE",
        "hydra.utils.get_method",
        "",
        5,
        None,
        ["torch.nn.ReLU"],
    ],
)
@pytest.mark.parametrize(
    "place", [lambda part: {"model": part}, lambda part: {"model": {"y": part}}, lambda part: {"model": [1, [part]]}]
)
def test_other_code_is_refused_wherever_it_is_named(target, place):
    with pytest.raises((UntrustedTarget, ConfigError)) as refused:
        refuse_untrusted(place({"_target_": target, "_partial_": True}), [])
    assert "_target_" in str(refused.value) and (not isinstance(target, str) or target in str(refused.value))


CSV = "pytorch_lightning.loggers.CSVLogger"


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("model.encoder.hidden", CSV),
        ("model", "vae_lab.data.digits.Digits"),
        ("data", "vae_lab.model.VAE"),
        ("data", "vae_lab.data.arrays.Source"),
        ("data.path", "vae_lab.data.digits.Digits"),
        ("objective", "torch.nn.Linear"),
        ("optimizer.params", "torch.optim.Adam"),
        ("schedule", "torch.optim.Adam"),
        ("trainer.profiler", "pytorch_lightning.Trainer"),
        ("trainer", "pytorch_lightning.trainer.states.TrainerState"),
        ("evaluation.estimator", "vae_lab.networks.mlp.MLPEncoder"),
        ("callbacks.mine", CSV),
        ("callbacks.mine", "vae_lab.callbacks.checkpoint.AtomicCheckpointIO"),
        ("callbacks.mine.logger", "pytorch_lightning.callbacks.Timer"),
        ("logger", "pytorch_lightning.callbacks.Timer"),
        ("logger", "pytorch_lightning.loggers.WandbLogger"),
        ("logger.name", CSV),
        ("mine", "torch.nn.ReLU"),
        ("expected.test", "vae_lab.model.VAE"),
    ],
)
def test_a_class_stands_in_its_own_section_alone(key: str, target: str):
    config = {"model": {"encoder": {}}, "callbacks": {"mine": {"_target_": "pytorch_lightning.callbacks.Timer"}}}
    config |= {"logger": {"_target_": CSV}, "trainer": {}, "data": {"_target_": DIGITS["_target_"]}, "expected": {}}
    config |= {"evaluation": {}, "optimizer": {}}
    *folders, name = key.split(".")
    node = config
    for folder in folders:
        node = node[folder]
    node[name] = {"_target_": target}
    with pytest.raises(ConfigError, match=rf"{key}\._target_"):
        refuse_untrusted(config, [])


@pytest.mark.parametrize("text", ["ftp://host/x", "/tmp/x", "a/../../x", "~/x", "$HOME/x", "C:/x", "..\\x", "a::b"])
@pytest.mark.parametrize("section", ["logger", "callbacks.mine", "trainer"])
def test_no_address_and_no_path_that_leads_out_is_given_to_what_writes(section: str, text: str):
    targets = {
        "logger": CSV,
        "callbacks.mine": "pytorch_lightning.callbacks.Timer",
        "trainer": "pytorch_lightning.Trainer",
    }
    config: dict = {"_target_": targets[section], "paths": [{"dirpath": text}]}
    config = {"callbacks": {"mine": config}} if "." in section else {section: config}
    with pytest.raises(UntrustedTarget, match=r"paths\.0\.dirpath=.* leads out of the run directory") as refused:
        refuse_untrusted(config, [])
    assert "allow=[pytorch_lightning]" in str(refused.value)
    assert foreign_packages(config) == ["pytorch_lightning"]
    refuse_untrusted(config, ["pytorch_lightning"])


def test_plain_words_with_dots_and_slashes_are_no_way_out():
    own = {"_target_": CSV, "prefix": "a..b/c.d", "name": "val/bound", "version": "..."}
    refuse_untrusted({"logger": own}, [])


def test_a_component_is_made_only_where_its_owner_asks_for_its_kind(monkeypatch):
    made = []
    monkeypatch.setattr(Digits, "__init__", lambda self, **_: made.append(self))
    wrong = {
        "model.encoder.hidden": (MODEL | {"encoder": ENCODER | {"hidden": DIGITS}}, r"a list such as \[1,2\]"),
        "model.latent_dim": (MODEL | {"latent_dim": DIGITS}, "an integer"),
        "model.encoder": (MODEL | {"encoder": DIGITS | {"_partial_": True}}, "Module"),
        "model.initialization": (MODEL | {"initialization": DIGITS}, "Callable"),
        "model.encoder.hidden.1": (MODEL | {"encoder": ENCODER | {"hidden": [8, DIGITS]}}, "an integer"),
    }
    for key, (config, expected) in wrong.items():
        with pytest.raises(ConfigError, match=rf"{key} must be .*{expected}.* got the component vae_lab\.data\.digits"):
            instantiate(config, "model", image_shape=(1, 2, 2))
    with pytest.raises(ConfigError, match=r"model\._target_ must name a kind of Module, got Digits"):
        instantiate(DIGITS, "model")
    assert not made


def test_an_interpolation_is_refused():
    for value in ("${oc.env:HOME}", "a ${b}"):
        with pytest.raises(UntrustedTarget, match=r"model\.hidden\.0 holds the interpolation"):
            refuse_untrusted({"model": {"hidden": [value]}}, [])


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported."""
    ran = tmp_path / "ran"
    code = f"import pathlib, torch\npathlib.Path({str(ran)!r}).touch()\nclass Network(torch.nn.Module): pass\n"
    (tmp_path / "strange_package.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield ran
    sys.modules.pop("strange_package", None)


def test_what_is_refused_is_not_even_imported(stranger):
    config = {"model": {"encoder": {"_target_": "strange_package.Network"}}}
    with pytest.raises(UntrustedTarget, match=r"model\.encoder\._target_='strange_package.Network'") as refused:
        refuse_untrusted(config, ["other_package", "strange"])
    assert "allow=[strange_package]" in str(refused.value)
    assert not stranger.exists()


def test_an_allowed_package_is_trusted_and_no_other(stranger):
    refuse_untrusted({"model": {"_target_": "strange_package.Network"}}, ["strange_package"])
    assert stranger.exists()
    with pytest.raises(UntrustedTarget):  # what it imports is not its own
        refuse_untrusted({"model": {"x": {"_target_": "strange_package.pathlib.Path"}}}, ["strange_package"])
