import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning
from drawn_run import make_drawn_run
from hydra import compose, initialize_config_dir

from vae_lab.cli import main
from vae_lab.errors import ConfigError, RunError
from vae_lab.runs.directory import RunDir
from vae_lab.wiring.build import settings
from vae_lab.wiring.folders import package_configs

with warnings.catch_warnings():  # beartype on the aliases of `typing` that OmegaConf's own classes are made of
    warnings.simplefilter("ignore", BeartypeDecorHintPep585DeprecationWarning)
    from vae_lab.commands.plot import PlotSettings, plot
    from vae_lab.figures.run_pictures import PICTURES


def config(*overrides: str) -> PlotSettings:
    with initialize_config_dir(str(package_configs()), version_base="1.3"):
        return settings(PlotSettings, compose("plot", list(overrides)))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_plot_draws_everything_into_the_run_directory_and_returns_the_folder(tmp_path):
    run = make_drawn_run(tmp_path / "run")
    (folder,) = plot(config(f"run={run.path}"))
    assert folder == run.images
    assert names(folder) == {f"{name}{suffix}" for name in PICTURES for suffix in (".png", ".pdf")}


@pytest.mark.slow
def test_plot_leaves_out_what_a_run_cannot_have_and_says_why(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    for name in set(PICTURES) - {"manifold", "samples"}:
        monkeypatch.delitem(PICTURES, name)
    run = make_drawn_run(tmp_path / "run", latent_dim=3)
    assert names(*plot(config(f"run={run.path}"))) == {"samples.png", "samples.pdf"}
    assert "manifold is left out: a manifold needs model.latent_dim = 2, and this run has 3" in caplog.text


@pytest.mark.slow
def test_plot_draws_the_named_pictures_only(tmp_path):
    run = make_drawn_run(tmp_path / "run")
    (folder,) = plot(config(f"run={run.path}", "pictures=[samples]", "dark_on_white=false"))
    assert names(folder) == {"samples.png", "samples.pdf"}
    assert names(*plot(config(f"run={run.path}", "pictures=manifold"))) == names(folder)
    assert "manifold.png" in names(folder)


def test_plot_refuses_a_picture_asked_for_by_name_that_the_run_cannot_have(tmp_path):
    run = make_drawn_run(tmp_path / "run", latent_dim=3)
    with pytest.raises(ConfigError, match="manifold cannot be drawn"):
        plot(config(f"run={run.path}", "pictures=[manifold]"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pictures=[sample]", "pictures must be one of .* got 'sample': did you mean samples"),
        ("pictures=[]", "pictures must name at least one"),
        ("pictures=sample", "pictures must be one of all, .* got 'sample'"),
        ("pictures=3", r"pictures must be a text or a list such as \[a,b\], got 3"),
        ("interpolate=[3]", r"interpolate must name test images in pairs, as \[3,17\], got \[3\]"),
        ("interpolate=[3,-1]", "interpolate must be an integer >= 0, got -1"),
        ("interpolate=[3,9999]", "interpolate must name test images from 0 to 249, got 9999"),
        ("seed=-1", "seed must be an integer >= 0, got -1"),
        ("dark_on_white=3", "dark_on_white must be true, false or null, got 3"),
        ("checkpoint=first", "checkpoint must be best, last, the count of a snapshot or null"),
    ],
)
def test_plot_refuses_mistakes_before_it_draws(tmp_path, override, message):
    run = make_drawn_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        plot(config(f"run={run.path}", override))
    assert not run.images.exists()


def test_plot_refuses_ends_of_interpolations_where_there_are_none(tmp_path):
    run = make_drawn_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="interpolate must be null where pictures has no interpolations"):
        plot(config(f"run={run.path}", "pictures=[samples]", "interpolate=[3,17]"))


def test_plot_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match="is no run directory"):
        plot(config(f"run={tmp_path}"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"run must name run directories: among .*folder is none"):
        plot(config(f"run={tmp_path}/*"))


@pytest.mark.slow
def test_plot_of_several_runs_draws_each_and_a_bad_one_stops_all_of_them(tmp_path, capfd):
    runs = [make_drawn_run(tmp_path / name) for name in ("a", "b")]
    bad = f"run={runs[0].path},{tmp_path}"
    assert main(["plot", bad, "pictures=samples"]) == 2
    assert "is no run directory" in capfd.readouterr().err and not runs[0].images.exists()
    assert main(["plot", f"run={tmp_path}/?", "pictures=[samples]"]) == 0
    assert capfd.readouterr().out.splitlines() == [str(run.images) for run in runs]
    assert all(names(run.images) == {"samples.png", "samples.pdf"} for run in runs)


@pytest.mark.slow
def test_two_plots_of_one_run_at_once_both_work(tmp_path, monkeypatch):
    run, both = make_drawn_run(tmp_path / "run"), threading.Barrier(2, timeout=60)
    original = PICTURES["samples"]

    def while_the_other_draws(*arguments, **settings):
        both.wait()
        return original(*arguments, **settings)

    monkeypatch.setitem(PICTURES, "samples", while_the_other_draws)
    cfg = config(f"run={run.path}", "pictures=samples")
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(plot, [cfg, cfg])) == [[run.images], [run.images]]
    assert names(run.images) == {"samples.png", "samples.pdf"}


@pytest.mark.slow
def test_a_plot_waits_while_another_writes_its_pictures_and_not_for_a_training(tmp_path):
    run = make_drawn_run(tmp_path / "run")
    with ThreadPoolExecutor(1) as pool:
        with RunDir(run.path).locked():
            waiting = pool.submit(plot, config(f"run={run.path}", "pictures=samples"))
            with pytest.raises(TimeoutError):
                waiting.result(timeout=1)
        assert waiting.result(timeout=60) == [run.images]
    run.update_record(status="running")
    with RunDir(run.path).locked(), pytest.raises(RunError, match="is being written by another process"):
        plot(config(f"run={run.path}", "pictures=samples"))
