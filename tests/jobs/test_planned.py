"""What a command leaves open is decided when a run is planned, and stands in its config from then on."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from training import TINY, composed, train_tiny

from vae_lab.commands.train import train
from vae_lab.jobs.planned import planned_config
from vae_lab.runs.directory import RunDir
from vae_lab.wiring.compose import compose_command

SMALL = ("data.batch_size=5", "evaluation.first=null", "data.train_size=null")


@pytest.fixture
def pictures(tmp_path):
    """20 colour pictures in two folders."""
    for i in range(20):
        folder = tmp_path / "pictures" / ("circles", "squares")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + i, 9), (10 * i, 0, 7)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


def plan(*overrides):
    return planned_config(compose_command("train", list(overrides))[0])


@pytest.mark.parametrize(
    ("overrides", "budget", "first"),
    [
        ([], 500_000, 5_000),  # 417 epochs of 12 minibatches
        (["data.batch_size=10", "data.train_size=1000"], 50_000, 500),
        (["data=mnist"], 1_000_000, 10_000),  # 20 epochs
        (["max_samples=30000"], 30_000, 300),
        (["trainer.max_epochs=50"], None, 648),
        (["max_samples=30000", "trainer.max_epochs=2"], 30_000, 25),
        (["max_samples=2000000"], 2_000_000, 10_000),
        (["max_samples=50"], 50, 1),
        (["experiment=mnist_fast"], 270_000, 10_000),
        (["evaluation.first=77"], 500_000, 77),
    ],
)
def test_small_data_sets_have_a_budget_in_minibatches_and_a_first_evaluation_that_suits_it(overrides, budget, first):
    config = plan(*overrides)
    assert (config["max_samples"], config["evaluation"]["first"]) == (budget, first)


def test_a_schedule_that_fills_the_budget_fills_the_one_that_was_decided():
    assert plan("schedule=warmup_cosine")["schedule"]["total_samples"] == 500_000
    assert plan("schedule=warmup_cosine", "max_samples=1000")["schedule"]["total_samples"] == 1000


@pytest.mark.slow
def test_whoever_only_waits_for_trainings_finds_what_the_data_decide_without_loading_pytorch():
    code = (
        "import sys\n"
        "from vae_lab.errors import ConfigError\n"
        "from vae_lab.jobs.planned import planned_config\n"
        "from vae_lab.wiring.compose import compose_command\n"
        "print(planned_config(compose_command('train', [])[0])['max_samples'])\n"
        "try:\n"
        "    planned_config(compose_command('train', ['data=npz', 'data.path=/nowhere.npz'])[0])\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
        "print({'torch', 'pytorch_lightning'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    budget, refused, loaded = done.stdout.splitlines()
    assert (budget, loaded) == ("500000", "set()") and "no file /nowhere.npz" in refused


def test_what_cannot_be_a_budget_is_left_for_the_training_to_refuse():
    assert plan("max_samples=many")["max_samples"] == "many"
    assert "evaluation" not in plan("~evaluation")


def test_what_is_found_in_the_files_is_said_and_frozen(tmp_path, pictures, caplog):
    caplog.set_level("INFO", logger="vae_lab")
    own = ["data=image_folder", f"data.path={pictures}", "data.size=[8,8]"]
    run = train_tiny(tmp_path / "run", *own, *SMALL, "max_samples=50", "trainer.max_epochs=null")
    data = run.read_config()["data"]
    assert (data["channels"], data["bits"], data["layout"]) == (3, 8, "random")
    assert run.read_record()["image_shape"] == [3, 8, 8]
    assert "budget: 50 samples, 10 minibatches: 3.3 epochs x 16, of which 15 fill minibatches; seed 0" in caplog.text
    assert "20 pictures of 8 x 9 to 27 x 9, RGB, 8 bits, cropped in the middle to 8 x 8 (data.fit=crop)" in caplog.text
    assert "2 classes, by folder: circles, squares" in caplog.text
    assert "2 classes, by folder: circles, squares" in run.read_record()["data_notes"]
    Image.new("L", (9, 9)).save(pictures / "circles" / "new.png")  # which would be found to be another data set
    assert run.read_config()["data"] == data


def test_constant_images_are_refused_before_anything_is_written(tmp_path):
    np.savez(tmp_path / "zeros.npz", x=np.zeros((50, 8, 8), np.uint8))
    own = ["data=npz", f"data.path={tmp_path / 'zeros.npz'}"]
    tiny = [text for text in TINY if not text.startswith("data.")]
    equal = pytest.raises(ValueError, match=r"all are equal, with values in 0 \.\.\. 0")
    with composed("train", f"run_dir={tmp_path / 'run'}", *tiny, *own, *SMALL) as cfg, equal:
        train(cfg)
    assert not RunDir(tmp_path / "run").exists()
