"""`vae-lab explore`: one file without an address, small beside its weights, or a refusal before anything is written."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_run import make_drawn_run
from training import composed, freeze_anew

from vae_lab.applications import explorer
from vae_lab.cli import main
from vae_lab.commands.explore import ExploreSettings, explore
from vae_lab.data.arrays import Split
from vae_lab.errors import ConfigError
from vae_lab.networks.mlp import MLPEncoder
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run
from vae_lab.wiring.build import settings


def explored(run: Path | str, *overrides: str) -> Path:
    with composed("explore", f"run={run}", "threads=1", *overrides) as cfg:
        (page,) = explore(settings(ExploreSettings, cfg))
    return page


def known(page: Path) -> dict[str, Any]:
    """What the page knows."""
    found = re.search(r'id="known">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    return json.loads(found[1])


def numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Drawn, not trained; to be read only but for its page."""
    return make_drawn_run(tmp_path_factory.mktemp("explore") / "run")


@pytest.mark.slow
def test_the_page_is_one_file_with_images_means_and_weights(run, capfd):
    assert main(["explore", f"run={run.path}", "threads=1", "num_images=5"]) == 0
    page = Path(capfd.readouterr().out.splitlines()[-1])
    assert page == run.path / "explorer.html"
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=|@import|fetch\(|import\(", text) and text.count("<link") == 1
    assert "default-src 'none'" in text
    about, loaded = known(page), load_run(run.path)
    assert len(text) - len(json.dumps(about)) < 1_000_000 - explorer.MOST_BYTES, "the rest of 1 MB beside the weights"
    test = loaded.data.splits["test"]
    pixels = numbers(about["images"]["pixels"], "<u1").reshape(-1, 1, 8, 8) / about["images"]["levels"]
    assert np.array_equal(pixels.astype(np.float32), test.images[:5].numpy())
    (frame,) = about["models"][0]["frames"]
    assert numbers(about["labels"], "<u2").tolist() == test.labels.tolist() and about["classes"] == list("0123456789")
    model = explorer.with_weights(loaded.model, frame["kinds"])
    means = torch.special.ndtr(model.posterior(test.images).mean.double()).detach() * 65535
    assert np.abs(numbers(frame["points"], "<u2") - means.flatten().numpy()).max() <= 0.5001
    assert frame["kinds"] == {"decoder": "float16", "encoder": "float16"} and frame["samples"] == 40_000


def test_weights_are_float16_only_where_no_pixel_changes_visibly(run):
    loaded = load_run(run.path)
    split = loaded.data.splits["test"]
    with torch.no_grad():
        next(loaded.model.decoder.head.parameters()).mul_(3000).add_(0.37)  # steep: a rounded weight is a visible pixel
    frame = explorer.Frame(loaded, split)
    assert frame.kinds["decoder"] == "float32"
    means = frame.means(loaded.model)
    half = explorer.with_weights(loaded.model, {"decoder": "float16"})
    assert explorer.largest_change((loaded.model, half), (means, means)) > 1 / 255
    assert explorer.largest_change((loaded.model, frame.model), (means, means)) == 0


@pytest.mark.slow
def test_pictures_and_points_are_fewer_where_there_is_no_room(run, tmp_path, monkeypatch):
    monkeypatch.setattr(explorer, "MOST_BYTES", 2000)
    about = known(explored(run.path, f"out={tmp_path}/small.html"))
    assert 0 < about["images"]["num"] < 20 and 0 < about["num_points"] < 200
    points = about["models"][0]["frames"][0]["points"]
    size = sum(map(len, (about["images"]["pixels"], about["labels"], points)))
    assert 1000 < size <= 2000


@pytest.mark.parametrize(("levels", "kind"), [(255, "<u1"), (256, "<u1"), (16, "<u1"), (None, "<f4")])
def test_the_images_of_the_page_are_those_of_the_data(levels, kind):
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x = x if levels is None else (x * min(levels, 255)).round() / levels
    found = explorer.pictures(Split(x, None, torch.arange(5)), 5)
    assert found["levels"] == levels
    assert np.abs(numbers(found["pixels"], kind) / (levels or 1) - x.double().flatten().numpy()).max() < 1e-7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("out=page.txt", "out must be an .html file or null, got page.txt"),
        (f"out={__file__}/page.html", "py is no folder: name another place"),
        ("split=tset", "split must name a split of digits, got 'tset': did you mean 'test'"),
        ("num_points=0", "num_points must be an integer >= 1, got 0"),
        ("film_megabytes=-1", "film_megabytes must be a number >= 0, got -1"),
        ("checkpoint=7", "checkpoint must be the count of a snapshot"),
    ],
)
def test_mistakes_are_refused(run, tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        explored(run.path, override if override.startswith("out") else f"out={tmp_path}/page.html", override)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_page_of_a_run_waits_for_who_writes_there_and_another_place_for_nobody(run, tmp_path, monkeypatch):
    monkeypatch.setattr("vae_lab.runs.directory.WRITING_SECONDS", 0.1)
    page = run.path / "explorer.html"
    before = page.stat().st_mtime_ns if page.exists() else None
    with run.locked():
        for out in ("null", run.path / "another.html"):
            with pytest.raises(ConfigError, match=r"another process.*; or name another place by out="):
                explored(run.path, f"out={out}")
        assert explored(run.path, f"out={tmp_path}/page.html").is_file()
    assert not (run.path / "another.html").exists()
    assert (page.stat().st_mtime_ns if page.exists() else None) == before


class Summing(MLPEncoder):
    """A trunk of one's own with an operation that the page has not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).cumsum(1)


@pytest.mark.slow
def test_an_unknown_operation_is_named_before_anything_is_written(tmp_path):
    run = make_drawn_run(tmp_path / "run")
    config = run.read_config()
    config["model"]["encoder"]["_target_"] = f"{__name__}.Summing"
    freeze_anew(run, config)
    with pytest.raises(ConfigError, match=r"the encoder computes aten.cumsum.default, which the page cannot"):
        explored(run.path, f"allow=[{__name__}]")
    assert not (run.path / "explorer.html").exists()


@pytest.mark.slow
def test_two_runs_must_share_z_and_test_images(run, tmp_path):
    other = make_drawn_run(tmp_path / "other", latent_dim=3)
    with pytest.raises(ConfigError, match=r"have model.latent_dim 2 and 3: make a page of each"):
        explored(f"[{run.path},{other.path}]")
    with pytest.raises(ConfigError, match="two to stand side by side, got 3"):
        third = make_drawn_run(tmp_path / "third")
        explored(f"[{run.path},{other.path},{third.path}]")


@pytest.mark.slow
def test_a_run_without_an_encoder_has_a_plane_and_no_means(tmp_path):
    page = explored(make_drawn_run(tmp_path / "run", has_encoder=False).path)
    (frame,) = known(page)["models"][0]["frames"]
    assert frame["encoder"] is None and frame["points"] is None and frame["decoder"]["operations"]
