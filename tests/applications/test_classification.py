import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_run import DIGITS, make_drawn_run
from training import composed

from vae_lab.applications.classification import (
    CLASSIFIERS,
    Labelled,
    error_rate,
    error_rates,
    folds,
    scaled,
    standard_error,
)
from vae_lab.commands.classify import ClassifySettings, classify
from vae_lab.data.arrays import Split
from vae_lab.errors import ConfigError
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run
from vae_lab.wiring.build import settings


def two_clouds(num: int, distance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in three dimensions around two centres, with unit variances."""
    noise = np.random.default_rng(seed)
    labels = np.arange(num) % 2
    return noise.standard_normal((num, 3)) + np.outer(labels, [distance, 0, 0]), labels


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_classifier_has_nearly_the_error_of_the_best_rule_between_two_normal_densities(classifier):
    (x, labels), (test, test_labels) = two_clouds(400, 2.0, 0), two_clouds(10_000, 2.0, 1)
    best = 0.5 * math.erfc(1 / math.sqrt(2))
    error = math.sqrt(best * (1 - best) / len(test))
    x, test = scaled(x, test)
    assert best - 6 * error <= error_rate(classifier, x, labels, test, test_labels) <= best + 6 * error + 0.01


def labelled(labels: list[int]) -> Labelled:
    split = Split(torch.rand(len(labels), 1, 2, 2), torch.tensor(labels), torch.arange(len(labels)))
    return Labelled(split, split, np.array(labels), np.array(labels))


def test_draws_have_as_many_of_every_class_and_depend_on_seed_and_number_alone():
    data = labelled([0] * 50 + [3] * 30 + [7] * 20)
    draws = [data.drawn(30, seed, number) for seed in (0, 1) for number in (0, 1)]
    for rows in draws:
        assert len(set(rows)) == 30
        assert np.unique(data.train_labels[rows], return_counts=True)[1].tolist() == [10, 10, 10]
    assert len({tuple(sorted(rows)) for rows in draws}) == 4
    assert (data.drawn(30, 0, 1) == draws[1]).all()
    split = folds(data.train_labels[draws[0]])
    for _, held_out in split.split(draws[0], data.train_labels[draws[0]]):
        assert set(data.train_labels[draws[0]][held_out]) == {0, 3, 7}


@pytest.mark.parametrize("num", [3, 31, 63])
def test_labels_must_be_as_many_of_every_class_and_two_at_least(num):
    with pytest.raises(ConfigError, match=f"labels must be multiples of the 3 classes, from 6 to 60, got {num}"):
        labelled([0] * 50 + [3] * 30 + [7] * 20).check(num)


def test_scaling_is_by_one_factor():
    x = np.random.default_rng(0).standard_normal((500, 2)) * [3.0, 1e-3]
    train, test = scaled(x, x[:5])
    assert train.var(0).sum() == pytest.approx(1)
    assert train.std(0)[0] / train.std(0)[1] == pytest.approx(x.std(0)[0] / x.std(0)[1])
    np.testing.assert_allclose(test, train[:5])


def test_standard_error_is_that_of_a_mean():
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(math.sqrt(5 / 3) / 2)
    assert standard_error([1.0]) is None


@pytest.mark.slow
def test_features_of_a_run_are_its_latent_means_its_pixels_and_as_many_components(finished_run):
    run = load_run(finished_run.path)
    data = Labelled.of(run)
    found = dict(data.features(run))
    assert {name: images[1].shape[1] for name, images in found.items()} == {
        "latent means": 3,
        "pixels": 64,
        "3 principal components": 3,
    }
    latent, expected = found["latent means"][1], run.encode(run.data.splits["test"].images).numpy()
    np.testing.assert_allclose(latent / latent.std(), expected / expected.std(), rtol=1e-4)
    errors = {
        name: error_rates(data, images, classifier="SVM", num_labels=100, repeats=2, seed=0)
        for name, images in found.items()
    }
    assert np.mean(errors["pixels"]) < 0.15 < np.mean(errors["3 principal components"]) < 0.6


def run_classify(*overrides: str) -> list[Path]:
    with composed("classify", "threads=1", *overrides) as cfg:
        return classify(settings(ClassifySettings, cfg))


@pytest.mark.slow
def test_classify_prints_a_table_and_writes_every_error(finished_run: RunDir, tmp_path, capsys):
    out = tmp_path / "errors.csv"
    given = ("labels=[20,40]", "repeats=2", f"run={finished_run.path}", f"out={out}")
    assert run_classify(*given) == [out]
    shown = capsys.readouterr().out
    assert "3 principal components" in shown and "of the 250 test images; mean ± s.e. of 2 draws" in shown
    assert "Kingma" not in shown, "published for MNIST alone"
    table = pd.read_csv(out)
    assert len(table) == 3 * 2 * 2 and set(table["num_labels"]) == {20, 40}
    assert np.all((table["error"].to_numpy() < 0.95) & (table["error_se"].to_numpy() > 0))
    with pytest.raises(ConfigError, match=r"out: .*errors\.csv exists: name another place"):
        run_classify(*given)
    run_classify(*given, "overwrite=true")
    pd.testing.assert_frame_equal(pd.read_csv(out), table)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("labels=[15]", "labels must be multiples of the 10 classes"),
        ("labels=[]", "labels must be a list of different numbers"),
        ("labels=[0]", "labels must be an integer >= 1, got 0"),
        ("repeats=0", "repeats must be an integer >= 1, got 0"),
        ("out=errors.txt", "out must be the name of a .csv file, got 'errors.txt'"),
        (f"out={__file__}/errors.csv", "py is no folder: name another place"),
    ],
)
def test_classify_refuses_mistakes(finished_run, capsys, override, message):
    with pytest.raises(ConfigError, match=message):
        run_classify(f"run={finished_run.path}", override)
    assert capsys.readouterr().out == ""


def test_classify_refuses_runs_without_labels_or_encoder(tmp_path):
    np.savez(tmp_path / "images.npz", x=np.random.default_rng(0).random((50, 8, 8)))
    data: dict[str, Any] = {name: value for name, value in DIGITS.items() if name != "_target_"}
    path = {"_target_": "vae_lab.data.npz.NPZ", "path": str(tmp_path / "images.npz"), "keys": None, "batch_size": 10}
    bare = make_drawn_run(tmp_path / "bare", data=data | path)
    with pytest.raises(ConfigError, match="run must be trained on data with labels"):
        run_classify(f"run={bare.path}")
    without = make_drawn_run(tmp_path / "without", has_encoder=False)
    with pytest.raises(ConfigError, match="run must have an encoder"):
        run_classify(f"run={without.path}")
