import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Annotation

from vae_lab.figures.base import select
from vae_lab.figures.canvas import nats, save
from vae_lab.figures.figure2 import THIN, Figure2
from vae_lab.figures.section5 import AEVB, WAKE_SLEEP, Section5, figure2_published, last_values
from vae_lab.runs.curve import append_row
from vae_lab.runs.directory import plan_run

BUDGET = {"quick": 1, "standard": 2, "paper": 3}
PANELS = {"mnist": [3, 5, 10, 20, 200], "frey_face": [2, 5, 10, 20]}


def figure2(panels=PANELS):
    training = Section5(
        data_sets={"mnist": [], "frey_face": []},
        panels={},
        methods={"aevb": [], "wake_sleep": []},
        evaluation=[],
        learning_rates=[],
        max_samples={"mnist": BUDGET, "frey_face": BUDGET},
        snapshots=[],
    )
    return Figure2(training=training, panels=panels)


@pytest.fixture(scope="module")
def canned():
    """The published curves up to 1e7, raised by a nat, as if they were ours."""
    table = figure2_published().query("samples_evaluated <= 1e7")
    label = table["dataset"] + "_" + table["latent_dim"].astype(str) + "_" + table["method"]
    return table.assign(bound_nats=table["bound_nats"] + 1, learning_rate=0.02, label=label)


@pytest.fixture(scope="module")
def picture(canned):
    return figure2().draw(canned[canned["label"] != "mnist_5_wake_sleep"], {})


def panels_of(picture):
    return {axes.get_title(): axes for axes in picture.axes if axes.get_title()}


def ours(axes):
    """The lines that are not pale."""
    return [line for line in axes.lines if line.get_alpha() == 1 and len(line.get_xdata())]


def test_curves_are_both_methods_of_nine_panels():
    labels = [needed.label for needed in figure2().needed_runs("quick")]
    assert len(labels) == 18
    assert {"mnist_200_wake_sleep", "frey_face_2_aevb"} < set(labels)


def test_collect_takes_the_running_train_mean_and_the_test_bound(tmp_path):
    run = plan_run(tmp_path / "mnist_3_aevb", {"seed": 0, "data": {}, "trainer": {}})
    for samples, train, test in ((100, -200.5, -199.0), (200, -180.5, -179.0)):
        row = {"samples_evaluated": samples, "train/bound_running": train, "train/bound": 0.0, "test/bound": test}
        append_row(run.curve_file, row | {"learning_rate": 0.02})
    table = figure2().collect({"mnist_3_aevb": run}, "quick")
    assert tuple(table) == Figure2.columns
    assert select(table, split="train")["bound_nats"].tolist() == [-200.5, -180.5]
    assert select(table, split="test")["bound_nats"].tolist() == [-199.0, -179.0]
    assert set(table["label"]) == {"mnist_3_aevb"}
    assert set(table["learning_rate"]) == {0.02}


def test_figure_has_the_papers_panels_and_axes(picture):
    panels = panels_of(picture)
    assert len(panels) == 9
    mnist, frey = panels["MNIST, $N_z=3$"], panels["Frey Face, $N_z=20$"]
    assert (mnist.get_xlim(), mnist.get_ylim(), mnist.get_xscale()) == ((1e5, 2.5e8), (-150, -95), "log")
    assert (frey.get_xlim(), frey.get_ylim(), frey.get_xscale()) == ((1e5, 1e8), (0, 1600), "log")
    places = {title: axes.get_subplotspec() for title, axes in panels.items()}
    assert [place.colspan.start for place in places.values()] == [0, 1, 2, 3, 4, 1, 2, 3, 4]
    legend = next(axes for axes in picture.axes if axes.get_legend())
    assert (legend.get_subplotspec().rowspan.start, legend.get_subplotspec().colspan.start) == (1, 0)


def test_panel_has_four_curves_before_the_four_published_ones(picture):
    axes = panels_of(picture)["MNIST, $N_z=20$"]
    looks = [(line.get_color(), line.get_linestyle()) for line in ours(axes)]
    assert looks == [(AEVB, "-"), (AEVB, "--"), (WAKE_SLEEP, "-"), (WAKE_SLEEP, "--")]
    assert [line.get_marker() for line in ours(axes)] == ["None", "None", "o", "o"], "told apart without colours"
    pale = [line for line in axes.lines if line.get_alpha() < 1]
    assert len(pale) == 4
    assert pale[0].get_xdata().max() > 1e8
    assert ours(axes)[0].get_xdata().max() <= 1e7


def test_absent_method_is_left_out_and_named(picture):
    axes = panels_of(picture)["MNIST, $N_z=5$"]
    assert len(ours(axes)) == 2
    assert "Wake-Sleep: no run yet" in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(("shift", "height"), [(-60, 0), (60, 1), (0, None)])
def test_arrow_points_to_a_test_curve_that_ends_outside_of_the_axes(canned, shift, height):
    own = select(canned, dataset="mnist", latent_dim=20, method="aevb")
    drawn = figure2({"mnist": [20]}).draw(own.assign(bound_nats=own["bound_nats"] + shift), {})
    arrows = [text for text in panels_of(drawn)["MNIST, $N_z=20$"].texts if isinstance(text, Annotation)]
    last = select(own, split="test")["bound_nats"].iloc[-1] + shift
    assert [(arrow.get_text(), arrow.xy[1]) for arrow in arrows] == (
        [] if height is None else [(f"AEVB {nats(last)}", height)]
    )


def test_models_without_a_network_are_thin_lines_where_the_table_has_them(canned):
    scores = {"independent_pixels": 574.7, "probabilistic_pca": 554.4, "factor_analysis": 685.0}
    panels = {"mnist": [20], "frey_face": [2]}
    drawn = figure2(panels).draw(canned.assign(**scores).where(canned["dataset"] == "frey_face", canned), {})
    thin = [line for line in panels_of(drawn)["Frey Face, $N_z=2$"].lines if line.get_linewidth() == THIN["linewidth"]]
    assert [np.asarray(line.get_ydata())[0] for line in thin] == list(scores.values())
    named = [text.get_text() for axes in drawn.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert "probabilistic PCA (test)" in named and "published" in named


def test_last_values_are_stated_even_below_the_axes():
    rows = [
        {"samples_evaluated": 10**6, "split": "train", "bound_nats": -155.31},
        {"samples_evaluated": 10**6, "split": "test", "bound_nats": -152.94},
    ]
    assert last_values(rows) == "at 1e6: −155.3 / −152.9"
    assert last_values(rows[:1]) == "at 1e6: −155.3 / –"


@pytest.mark.slow
def test_figure_is_saved_also_of_one_panel_and_without_a_run(tmp_path, canned, caplog):
    caplog.set_level("INFO")
    nothing = pd.DataFrame(columns=list(Figure2.columns))
    for name, table in (("canned", canned), ("nothing", nothing)):
        png, pdf = save(figure2({"mnist": [20]}).draw(table, {}), tmp_path / name)
        assert png.stat().st_size > 10_000
        assert pdf.read_bytes().startswith(b"%PDF")
    assert not [line for line in caplog.messages if "ubstituting" in line]


def test_unknown_data_set_and_no_panel_are_refused():
    with pytest.raises(ValueError, match=r"figure\.panels must name some of mnist, frey_face, got digits"):
        figure2({"digits": [2]})
    with pytest.raises(ValueError, match="must hold a latent size"):
        figure2({"mnist": []})
