import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_run import DIGITS, make_drawn_run
from PIL import Image
from training import composed

from vae_lab.applications.images import TARGETS
from vae_lab.commands.encode import EncodeSettings, encode
from vae_lab.distributions import kl_to_standard_normal
from vae_lab.errors import ConfigError, NoEncoder, RunError
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run, load_run
from vae_lab.wiring.build import settings

FOLDER = {
    **{"_target_": TARGETS["image_folder"], "size": [8, 8], "channels": 1, "bits": 8, "fit": "stretch"},
    **{"background": "white", "layout": "random", "test_path": None, "skip_damaged": False, "classes": None},
    **{"batch_size": 5, "binarization": "none", "train_size": None, "split_seed": 0},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_drawn_run(tmp_path_factory.mktemp("runs") / "run", data=DIGITS | {"classes": [1, 3, 4]})


def encoded(run: RunDir, out: Path, *overrides: str) -> Any:
    with composed("encode", f"run={run.path}", f"out={out}", "threads=1", *overrides) as cfg:
        assert encode(settings(EncodeSettings, cfg)) == out
    return pd.read_csv(out) if out.suffix == ".csv" else pd.DataFrame()


def assert_posterior(table: Any, run: Run, x: torch.Tensor) -> None:
    """The rows are q(z|x) of these images."""
    with torch.no_grad():
        q = run.model.posterior(x)
    kl = kl_to_standard_normal(q).sum(-1)
    for name, values in (("mean_0", q.mean[:, 0]), ("mean_1", q.mean[:, 1]), ("std_1", q.std[:, 1]), ("kl", kl)):
        np.testing.assert_allclose(table[name], values.numpy(), rtol=1e-4, atol=1e-6)


def write_photos(folder: Path, num: int) -> None:
    noise = np.random.default_rng(0)
    for i in range(num):
        name = folder / ("dogs" if i % 2 else "cats") / f"{i:02}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (12, 9), dtype=np.uint8)).save(name)


def test_rows_are_the_posteriors_of_a_split_of_the_classes_that_were_trained_on(run, tmp_path):
    loaded = load_run(run.path)
    table = encoded(run, tmp_path / "z.csv", "split=val")
    split = loaded.data.splits["val"]
    assert list(table.columns) == ["image", "label", "kl", "mean_0", "mean_1", "std_0", "std_1"]
    assert table["label"].tolist() == split.labels.tolist() and set(table["label"]) == {1, 3, 4}
    assert_posterior(table, loaded, split.images)


def test_all_classes_of_the_test_split_are_encoded_where_they_are_asked_for(run, tmp_path):
    table = encoded(run, tmp_path / "z.csv", "classes=all")
    assert len(table) == 250 and set(table["label"]) == set(range(10))
    first = encoded(run, tmp_path / "first.csv", "classes=all", "num_datapoints=7")
    pd.testing.assert_frame_equal(first, table[:7])


@pytest.mark.slow
def test_nothing_is_written_into_a_run_that_another_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_lab.runs.directory.WRITING_SECONDS", 0.1)
    run = make_drawn_run(tmp_path / "run")
    (run.path / "images").mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(run.path / "images")
    with run.locked():
        for place in (run.path / "new", tmp_path / "link", tmp_path / "link" / ".."):
            with pytest.raises(RunError, match=r"another process.*; or name another place by out="):
                encoded(run, place / "z.csv")
        assert not list(run.path.rglob("z.csv"))
        monkeypatch.chdir(run.path)
        assert len(encoded(run, Path("../z.csv")))
    assert len(encoded(run, run.path / "new" / "z.csv")) and not run.is_locked()


def test_arrays_are_the_same_numbers(run, tmp_path):
    table = encoded(run, tmp_path / "z.csv")
    encoded(run, tmp_path / "z.npz")
    with np.load(tmp_path / "z.npz") as arrays:
        assert arrays["mean"].shape == arrays["std"].shape == (len(table), 2) and arrays["mean"].dtype == np.float32
        np.testing.assert_allclose(arrays["mean"][:, 1], table["mean_1"], rtol=1e-6)
        assert arrays["label"].tolist() == table["label"].astype(str).tolist()


def test_other_pictures_are_processed_as_those_of_the_run_and_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_photos(tmp_path / "photos", 20)
    write_photos(tmp_path / "others", 3)
    run = make_drawn_run(tmp_path / "run", data=FOLDER | {"path": str(tmp_path / "photos")})
    table = encoded(run, tmp_path / "z.csv", f"data.path={tmp_path}/others")
    assert table["file"].tolist() == [
        f"{tmp_path}/others/{name}" for name in ("cats/00.png", "cats/02.png", "dogs/01.png")
    ]
    assert table["label"].tolist() == ["cats", "cats", "dogs"]
    assert "others: 3 pictures of 9 x 12, grey, 8 bits, stretched to 8 x 8 (data.fit=stretch)" in caplog.text
    same = encoded(run, tmp_path / "same.csv", f"data.path={tmp_path}/photos")
    split = encoded(run, tmp_path / "test.csv")
    merged = split.merge(same, on="file", suffixes=("", "_same"))
    assert len(merged) == 2 and (merged["mean_0"] == merged["mean_0_same"]).all()


@pytest.mark.slow
def test_run_on_other_data_takes_own_files_of_its_shape(run, tmp_path):
    write_photos(tmp_path / "photos", 3)
    assert len(encoded(run, tmp_path / "z.csv", f"data.path={tmp_path}/photos")) == 3
    x = np.random.default_rng(0).random((4, 8, 8))
    np.savez(tmp_path / "x.npz", images=x)
    loaded = load_run(run.path)
    table = encoded(run, tmp_path / "x.csv", f"data.path={tmp_path}/x.npz")
    assert "label" not in table and "file" not in table
    assert_posterior(table, loaded, torch.from_numpy(x).float()[:, None])
    np.savez(tmp_path / "wide.npz", x=np.zeros((4, 8, 9)))
    with pytest.raises(ConfigError, match=r"trained on, \[channel, height, width\] = \[1, 8, 8\], got \[1, 8, 9\] in"):
        encoded(run, tmp_path / "w.csv", f"data.path={tmp_path}/wide.npz")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["split=tset"], "split must name a split of digits, got 'tset': did you mean 'test'"),
        (["classes=none"], "classes must be one of all, got 'none'"),
        (["split=test", "data.path=photos"], "split and classes must be null with data.path=photos"),
        (["data.path=nowhere"], "there is no folder nowhere"),
        (["num_datapoints=0"], "num_datapoints must be an integer >= 1 or null, got 0"),
        (["out=z.txt"], r"out must be of one of the kinds \.npz, \.csv, \.parquet, got 'z.txt'"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(run, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        encoded(run, tmp_path / "z.csv", *overrides)
    assert not [*tmp_path.iterdir()]


def test_run_without_an_encoder_is_refused(tmp_path):
    without = make_drawn_run(tmp_path / "run", has_encoder=False)
    with pytest.raises(NoEncoder, match="its objective trained no encoder, and vae-lab encode needs"):
        encoded(without, tmp_path / "z.csv")


def test_parquet_holds_the_same_table_where_pyarrow_is_there(run, tmp_path):
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(ConfigError, match=r"z\.parquet needs pyarrow: pip install '.\[export\]'"):
            encoded(run, tmp_path / "z.parquet")
        return
    encoded(run, tmp_path / "z.parquet")
    table = encoded(run, tmp_path / "z.csv")
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "z.parquet").astype({"label": int}), table, check_dtype=False
    )
