import os
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_run import make_drawn_run
from PIL import Image
from training import composed

from vae_lab.cli import main
from vae_lab.commands.sample import SampleSettings, sample
from vae_lab.data.npz import NPZ
from vae_lab.errors import ConfigError
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run
from vae_lab.wiring.build import settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_drawn_run(tmp_path_factory.mktemp("runs") / "run")


def sampled(run: RunDir, out: Path, *overrides: str) -> Path:
    with composed("sample", f"run={run.path}", f"out={out}", "threads=1", *overrides) as cfg:
        return sample(settings(SampleSettings, cfg))


def test_arrays_are_those_of_run_sample_and_can_be_read_as_data(run, tmp_path):
    file = sampled(run, tmp_path / "s.npz", "num=300", "seed=4")
    with np.load(file) as arrays:
        assert arrays["x"].shape == (300, 8, 8) and arrays["z"].shape == (300, 2) and arrays["x"].dtype == np.float32
        assert torch.equal(torch.from_numpy(arrays["x"])[:, None], load_run(run.path).sample(300, seed=4))
    assert (
        len(NPZ(path=str(file), keys=None, batch_size=5, binarization="none", train_size=None, split_seed=0).whole())
        == 300
    )
    again = sampled(run, tmp_path / "again.npz", "num=300", "seed=4")
    assert again.read_bytes() == file.read_bytes()


def test_pixels_of_the_aggregate_posterior_are_drawn_to_a_folder(run, tmp_path):
    folder = sampled(run, tmp_path / "s", "num=11", "draw=pixels", "from=aggregate", "components=2")
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{i:02}.png" for i in range(11)]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    assert pixels.shape == (11, 8, 8) and set(np.unique(pixels)) == {0, 255}


def test_grid_is_one_picture_of_the_means(run, tmp_path, capfd):
    out = tmp_path / "grid.png"
    assert main(["sample", f"run={run.path}", f"out={out}", "num=5", "threads=1"]) == 0
    assert capfd.readouterr().out == f"{out}\n"
    pixels, means = np.asarray(Image.open(out)), load_run(run.path).sample(5)
    assert pixels.shape == (2 * 9 - 1, 3 * 9 - 1), "two rows of three, the last one not full"
    assert np.array_equal(pixels[:8, :8], (means[0, 0] * 255).round().byte().numpy()) and (pixels[9:, 18:] == 255).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["num=0"], "num must be an integer >= 1, got 0"),
        (["num=9999999999999"], "num=9999999999999 would take .* of memory, .*: draw fewer at a time"),
        (["draw=mode"], "draw must be one of mean, pixels, got 'mode'"),
        (["from=posterior"], "from must be one of prior, aggregate, got 'posterior'"),
        (["components=3"], "components must be null with from=prior, got 3"),
        (["out=a.jpg"], r"out must be of one of the kinds .npz, .png, a folder \(no suffix\), got 'a.jpg'"),
        (["out=''"], "out must be of one of the kinds"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(run, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        sampled(run, tmp_path / "s.npz", *overrides)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_what_lies_there_is_kept_unless_it_is_to_be_replaced(run, tmp_path):
    file, folder = tmp_path / "s.npz", tmp_path / "s"
    file.write_text("mine")
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    for place, what in ((file, "exists"), (folder, "holds files already")):
        with pytest.raises(ConfigError, match=f"out: {place} {what}: name another place, or let overwrite=true"):
            sampled(run, place)
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(ConfigError, match=r"out must name a file, got .*d\.npz: it is none"):
        sampled(run, tmp_path / "d.npz", "overwrite=true")
    with pytest.raises(ConfigError, match=r"out: .* cannot be made, for .*s\.npz is no folder: name another place"):
        sampled(run, file / "below" / "s.npz")
    assert file.read_text() == "mine"
    sampled(run, file, "num=1", "overwrite=true")
    sampled(run, folder, "num=1", "overwrite=true")
    assert np.load(file)["x"].shape == (1, 8, 8)
    assert {path.name for path in folder.iterdir()} == {"mine.txt", "0.png"}
    assert sampled(run, tmp_path / "new" / "folder" / "s.npz", "num=1").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_may_not_be_written_to_is_refused_before_the_work(run, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match=r"cannot be written to, for .*locked may not be: name another place"):
        sampled(run, tmp_path / "locked" / "s.npz")


def test_run_without_an_encoder_has_the_prior_alone_and_several_runs_have_no_one_place(run, tmp_path):
    without = make_drawn_run(tmp_path / "without", has_encoder=False)
    with pytest.raises(ConfigError, match=r"from must be prior for .*without, got 'aggregate'"):
        sampled(without, tmp_path / "s.npz", "from=aggregate")
    assert sampled(without, tmp_path / "s.npz", "num=2").is_file()
    with pytest.raises(ConfigError, match="run must name one run, got 2"):
        sampled(RunDir(tmp_path / "without"), tmp_path / "t.npz", f"run=[{without.path},{run.path}]")
