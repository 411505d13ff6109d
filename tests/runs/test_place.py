"""A run finds its data from any working folder, and where they have moved; other data are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training import TINY, train_tiny

from vae_lab.cli import main
from vae_lab.data import mnist
from vae_lab.errors import ConfigError, RunError
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run
from vae_lab.runs.place import place_key, places_of

MEASURE = ("num_samples=2", "estimator.num_samples=2", "threads=1")
SMALL = [key for key in TINY if not key.startswith(("data.train_size", "data.batch_size"))]


def pictures(seed: int) -> np.ndarray:
    """Images of a data set of its own."""
    return np.random.default_rng(seed).integers(0, 255, (60, 4, 4), dtype=np.uint8)


def write_npz(place: Path, seed: int) -> None:
    """An archive of images."""
    place.parent.mkdir(exist_ok=True, parents=True)
    np.savez(place, x=pictures(seed))


def write_folder(place: Path, seed: int) -> None:
    """A folder of pictures."""
    place.mkdir(parents=True)
    for i, picture in enumerate(pictures(seed)):
        Image.fromarray(picture).save(place / f"{i:02}.png")


def write_root(place: Path, seed: int) -> None:
    """A folder as that of MNIST, whose files `small_mnist` reads."""
    write_npz(place / "MNIST" / "raw" / "images.npz", seed)


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST whose images are few, in one file below its folder; nothing is downloaded."""

    def load(self: mnist.MNIST) -> mnist.Source:
        file = self.folder / "images.npz"
        if not file.is_file():
            mnist.download(file, urls=[], algorithm="md5", checksum="0")
        images = np.zeros((60, 28, 28), np.uint8)
        images[:, :4, :4] = np.load(file)["x"]
        order = mnist.torch.arange(60)
        return mnist.Source(images, None, mnist.cut(order, train=40, val=10, test=10))

    monkeypatch.setattr(mnist.MNIST, "load", load)


KINDS: dict[str, tuple[str, str, list[str], Callable[[Path, int], None]]] = {
    "npz": ("data.path", "own.npz", ["data=npz"], write_npz),
    "image_folder": ("data.path", "photos", ["data=image_folder", "data.size=[4,4]"], write_folder),
    "mnist": ("data.root", "files", ["data=mnist", "data.validation_size=10"], write_root),
}


@pytest.mark.slow
def test_run_finds_its_test_pictures_where_they_have_moved_with_the_others_and_by_their_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def move(start: str, end: str) -> None:
        (tmp_path / end).mkdir()
        for name in ("photos", "further"):
            shutil.move(tmp_path / start / name, tmp_path / end / name)

    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "a" / "photos", 0)
    write_folder(tmp_path / "a" / "further", 1)
    own = ["data=image_folder", "data.path=a/photos", "data.test_path=a/further", "data.size=[4,4]"]
    assert main(["train", "run_dir=run", *own, "data.batch_size=10", "max_samples=100", *SMALL]) == 0
    evaluate = ["evaluate", "run=run", *MEASURE]
    move("a", "b")
    assert main([*evaluate, "data_root=b/photos"]) == 0
    assert main(["train", "run_dir=run", "data.path=b/photos", "max_samples=200"]) == 0
    move("b", "c")
    assert main([*evaluate, "data_root=c/photos", "num_samples=3"]) == 0
    shutil.move(tmp_path / "c" / "further", tmp_path / "elsewhere")
    _ = capfd.readouterr()
    assert main([*evaluate, "data_root=c/photos", "num_samples=4"]) == 2
    *_, said = capfd.readouterr().err.splitlines()
    assert f"and for its test pictures at {tmp_path}/c/further and at {tmp_path}/b/further" in said
    there = ["data.path=c/photos", "data.test_path=elsewhere"]
    assert main(["train", "run_dir=run", *there, "max_samples=300"]) == 0
    assert main([*evaluate, "num_samples=5"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("small_mnist")
@pytest.mark.parametrize("kind", KINDS)
def test_run_finds_its_data_from_elsewhere_and_where_they_have_moved(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    key, name, choice, write = KINDS[kind]
    here, away, moved = tmp_path / "here", tmp_path / "away", tmp_path / "new" / name
    for folder in (here, away, moved.parent):
        folder.mkdir()
    write(here / name, 0)
    monkeypatch.chdir(here)
    new = ["train", "run_dir=run", *choice, f"{key}={name}", "data.batch_size=10", "max_samples=100", *SMALL]
    assert main(new) == 0
    run = RunDir(here / "run")
    assert run.read_config()["data"][key[5:]] == name
    assert run.read_record()["data_place"] == {name: str(here / name)}
    train, evaluate = ["train", f"run_dir={run.path}"], ["evaluate", f"run={run.path}", *MEASURE]

    monkeypatch.chdir(away)
    assert main(evaluate) == 0 == main([*train, "max_samples=200"])
    assert run.read_record()["data_place"] == {name: str(here / name)}

    shutil.move(here / name, moved)
    for command, asked in (([*evaluate, "num_samples=3"], "data_root"), ([*train, "max_samples=300"], key)):
        _ = capfd.readouterr()
        assert main(command) == 2
        *_, said = capfd.readouterr().err.splitlines()
        for part in (str(here / name), str(away / name), f"{asked}=NEW names another place"):
            assert part in said, said
    assert main([*evaluate, f"data_root={moved}", "num_samples=3"]) == 0
    assert main(["plot", f"run={run.path}", "pictures=reconstructions", f"data_root=../new/{name}"]) == 0
    assert main([*train, f"{key}=../new/{name}", "max_samples=300"]) == 0
    assert run.read_record()["data_place"] == {f"../new/{name}": str(moved)}
    monkeypatch.chdir(tmp_path)
    assert main([*evaluate, "num_samples=4"]) == 0

    write(tmp_path / "other" / name, 1)
    for command in ([*evaluate, f"data_root=other/{name}", "num_samples=5"], [*train, f"{key}=other/{name}"]):
        _ = capfd.readouterr()
        assert main([*command, *["max_samples=400"] * (command[0] == "train")]) == 2
        assert f"the data of {run.path} have changed since it was trained" in capfd.readouterr().err
    assert run.read_record()["samples_evaluated"] == 300


@pytest.mark.slow
def test_data_without_a_place_refuse_one_in_every_command(
    finished_run: RunDir, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(shutil.copytree(finished_run.path, tmp_path / "run"))
    for command, key in (
        (["evaluate", f"run={run.path}", "data_root=x"], "data_root"),
        (["plot", f"run={run.path}", "data_root=x"], "data_root"),
        (["verify", f"run={run.path}", "data_root=x"], "data_root"),
        (["train", f"run_dir={run.path}", "data.path=x"], "data.path"),
        (["train", f"run_dir={run.path}", "data.root=x"], "data.root"),
        (["train", f"run_dir={run.path}", "data.test_path=x"], "data.test_path"),
    ):
        assert main(command) == 2
        *_, said = capfd.readouterr().err.splitlines()
        assert f"{key} must be left out for {run.path}, got 'x': its data set, Digits, lies in no place" in said
    with pytest.raises(ConfigError, match="its data set, Digits, lies in no place"):
        load_run(run.path, data_root="x")


def test_place_of_another_kind_of_data_is_refused_by_the_key_of_its_own(tmp_path: Path) -> None:
    write_npz(tmp_path / "own.npz", 0)
    own = ("data=npz", f"data.path={tmp_path}/own.npz", "data.train_size=null", "data.batch_size=10")
    run = train_tiny(tmp_path / "run", *own, "max_samples=100")
    with pytest.raises(ConfigError, match=r"data\.root must be left out .*: the place of its data is data\.path"):
        train_tiny(run.path, "++data.root=x")


def test_key_of_a_place_is_for_data_that_have_one_where_the_run_is_new(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"run_dir={tmp_path}/new", "data.path=x.npz"]) == 2
    assert "data.path" in capfd.readouterr().err and not (tmp_path / "new").exists()


def test_recorded_place_is_that_of_what_was_typed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = {"data_place": {"a.npz": "/elsewhere/a.npz"}}
    config = {"data": {"_target_": "NPZ", "path": "a.npz"}}
    assert list(places_of(config, record)) == ["/elsewhere/a.npz", "a.npz"]
    (tmp_path / "a.npz").touch()
    assert list(places_of(config, record)) == ["a.npz", "/elsewhere/a.npz"]
    assert places_of(config, record, "b.npz") == {"b.npz": str(tmp_path / "b.npz")}
    assert places_of({"data": {"path": "c.npz"}}, record) == {"c.npz": str(tmp_path / "c.npz")}
    assert (place_key({"data": {"root": "x"}}), place_key({"data": {"batch_size": 1}})) == ("data.root", None)


def test_record_with_a_damaged_place_is_refused(finished_run: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(finished_run.path, tmp_path / "run"))
    (run.path / "run.json").write_text(json.dumps(run.read_record() | {"data_place": {"a": 5}}))
    with pytest.raises(RunError, match="data_place must be a path by what was typed"):
        load_run(run.path)
