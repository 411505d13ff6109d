from pathlib import Path

import numpy as np
import pytest
from drawn_run import make_drawn_run
from PIL import Image
from training import composed

from vae_lab.cli import main
from vae_lab.commands.inpaint import InpaintSettings, inpaint
from vae_lab.errors import ConfigError, NoEncoder
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run
from vae_lab.wiring.build import settings

FEW = ("threads=1", "num=3", "num_datapoints=2", "num_steps=10", "num_samples=30")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_drawn_run(tmp_path_factory.mktemp("runs") / "run")


def inpainted(run: RunDir, out: Path, *overrides: str) -> list[Path]:
    with composed("inpaint", f"run={run.path}", f"out={out}", *FEW, *overrides) as cfg:
        return inpaint(settings(InpaintSettings, cfg))


@pytest.mark.slow
def test_arrays_picture_and_table_are_of_the_same_images(run, tmp_path, capfd):
    out = tmp_path / "i.npz"
    assert main(["inpaint", f"run={run.path}", f"out={out}", "mask=center", *FEW]) == 0
    shown = capfd.readouterr().out
    assert shown.splitlines()[-2:] == [str(out), str(tmp_path / "i.png")]
    split = load_run(run.path).data.splits["test"]
    with np.load(out) as arrays:
        missing = arrays["missing"]
        assert missing.sum() == 16 and missing[2:6, 2:6].all()
        np.testing.assert_array_equal(arrays["x"], split.images[:2, 0])
        assert arrays["draws"].shape == arrays["means"].shape == (2, 3, 8, 8) and arrays["mean"].shape == (2, 8, 8)
        np.testing.assert_array_equal(arrays["draws"][:, :, ~missing], arrays["x"][:, None, ~missing].repeat(3, 1))
        assert set(np.unique(arrays["draws"][:, :, missing])) == {0, 1}
        assert arrays["label"].tolist() == [str(label) for label in split.labels[:2].tolist()]
        assert f"{arrays['log_conditional'][0]:.2f}" in shown and f"{arrays['acceptance'][0]:.0%}" in shown
    with Image.open(tmp_path / "i.png") as picture:
        assert picture.width > 1000
    with pytest.raises(ConfigError, match=r"out: .*i\.npz exists"):
        inpainted(run, out)
    assert inpainted(run, out, "overwrite=true", "draw=pixels", "mask=random_40")[0] == out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mask=half"], "mask must be one of right_half"),
        (["num=0"], r"num must be an integer in 1 \.\.\. 250, got 0"),
        (["num_steps=7"], "num_steps must be an integer >= 8, got 7"),
        (["draw=mode"], "draw must be one of mean, pixels"),
        (["split=x"], "split must name a split"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(run, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        inpainted(run, tmp_path / "i.npz", *overrides)
    assert not [*tmp_path.iterdir()]


def test_run_without_an_encoder_is_refused(tmp_path):
    without = make_drawn_run(tmp_path / "run", has_encoder=False)
    with pytest.raises(NoEncoder, match="vae-lab inpaint needs"):
        inpainted(without, tmp_path / "i.npz")
