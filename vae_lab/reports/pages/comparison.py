"""The page that holds runs against each other: settings, results, curves, the same images, the same z."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from matplotlib.figure import Figure

from vae_lab.figures.run_pictures import dark_on_white_by_default, read_test_images
from vae_lab.figures.side_by_side import Line, colours, curves, described, labelled_rows
from vae_lab.randomness import generator
from vae_lab.reports.listing.rows import list_of_runs
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import Overview, grouped
from vae_lab.reports.pages.page import Section
from vae_lab.reports.pages.reading import Reader
from vae_lab.reports.values import as_text, enumerated, letters
from vae_lab.runs.load import Run
from vae_lab.runs.result import log_likelihood_keys, loss_of, other_draws, trained_with
from vae_lab.wiring.table import Table

IMAGES = 10
"""How many images stand in a row of the pictures."""
SEED = 0
"""The seed of the shared z."""
BOUNDS = ("test/bound", "val/bound")
"""Columns of the curve that are drawn, the first that there is."""
SHOWN = ("test/bound", "val/bound", "train/bound", "test/reconstruction", "test/kl", "test/active_units")
MOST_WORDS = 4
"""The most settings that name a curve."""
MOST_RUNNING = 4
"""The most runs that have their running means in the picture."""
MOST_TURNED = 6
"""The most runs that have a column each in a table; more have another table below it."""


def comparison_sections(found: Sequence[Overview], left_out: Sequence[str], reader: Reader) -> list[Section]:
    """Everything about these runs beside each other, lettered in their order."""
    runs = {letters(i): run for i, run in enumerate(found)}
    models, unread = reader.models(runs)
    return [
        runs_section(runs, left_out),
        differences_section(runs),
        curves_section(runs),
        reconstructions_section(runs, models, unread),
        decodings_section(runs, models, unread),
    ]


def runs_section(runs: Mapping[str, Overview], left_out: Sequence[str]) -> Section:
    """Which run is which, what was measured, and which of the values cannot be compared."""
    lacks = [f"{label} is {run.lack}: its values are the last on its curve." for label, run in runs.items() if run.lack]
    text = [*lacks, *(f"Left out: {reason}." for reason in left_out)]
    if without := [label for label, run in runs.items() if run.value("test/bound") is None]:
        text.append(f"{enumerated(without)}: no bound on the test split (no encoder, or not measured yet).")
    found = list(runs.values())
    estimates = [key for run in found for key in log_likelihood_keys(run.measured)]
    table = list_of_runs(Runs(found), [*SHOWN, *estimates, "checkpoint"], labels=list(runs))
    return Section("Runs", text, tables=[part.turned() for part in table.cut(MOST_TURNED)])


def differences_section(runs: Mapping[str, Overview]) -> Section:
    """The keys that the configs disagree in."""
    known = Runs(list(runs.values()))
    captions = {
        True: "From config.yaml; all other settings are equal.",
        False: "These change nothing in what is computed, but for rounding.",
    }
    tables = []
    for matters, caption in captions.items():
        if keys := [key for key in known.varied if known.matters(key) == matters]:
            texts = [map(shortened, known.texts[key]) for key in keys]
            table = Table(("key", *keys), list(map(list, zip(runs, *texts, strict=True))), caption)
            tables += [part.turned() for part in table.cut(MOST_TURNED)]
    return Section("What differs", [] if tables else ["Nothing: the configs are equal."], tables=tables)


def shortened(text: str) -> str:
    """The text of a setting; of one of the lab's own classes its name without the modules."""
    return text.rpartition(".")[2] if text.startswith("vae_lab.") else text


def curves_section(runs: Mapping[str, Overview]) -> Section:
    """The curves over each other: a picture for every quantity and every group of runs that are comparable."""
    section = grouped_section(
        "Curves", "Nats of other data, binarisation, likelihood or number of draws of z share no axis", runs, conditions
    )
    for group in grouped(runs, conditions):
        names = Runs(list(group.values())).names(MOST_WORDS)
        for key in curve_keys(group):
            lines = []
            for (label, run), name, colour in zip(group.items(), names, colours(len(group)), strict=True):
                lines.append(Line(f"{label} {name}".strip(), *run.series(key), colour))
                if key in BOUNDS and len(group) <= MOST_RUNNING:
                    running = run.series("train/bound_running")
                    lines.append(Line(label, *running, colour, ":", is_named=False))
            split, _, estimator = key.partition("/log_likelihood/")
            data, shown = next(iter(group.values())).data, [line for line in lines if line.samples]
            quantity, caption, whose = "log p(x)", f"log p(x) on {split} by {estimator}.", ""
            if not estimator:
                losses = {label: trained_with(loss_of(run.settings)) for label, run in group.items()}
                whose = enumerated([f"{label}{loss}" for label, loss in losses.items() if loss])
                whose = f" {whose}." if whose else ""
                draws = " or".join(dict.fromkeys(other_draws(run.settings) for run in group.values()))
                dots = f"; thin dots: the running mean over training minibatches{draws}" * (len(lines) > len(group))
                quantity, caption = "bound", f"{key}{dots}.{whose}"
            alt = described(shown, f"{key.partition('/')[0]} {quantity}") + whose
            section.draw(partial(curves, shown, title=data, quantity=quantity), caption, alt=alt, pdf=True)
    if empty := [label for label, run in runs.items() if not run.curve]:
        section.text.append(f"Not evaluated yet: {enumerated(empty)}.")
    return section


def curve_keys(group: Mapping[str, Overview]) -> list[str]:
    """The columns that are drawn of a group's curves."""
    columns = dict.fromkeys(key for run in group.values() for row in run.curve for key in row)
    bounds = [key for key in BOUNDS if key in columns][:1]
    return [*bounds, *(key for key in log_likelihood_keys(columns) if key.startswith("test"))]


def reconstructions_section(runs: Mapping[str, Overview], models: Mapping[str, Run], unread: Sequence[str]) -> Section:
    """The same test images through every encoder and decoder."""
    seeing = {label: runs[label] for label, model in models.items() if model.model.has_encoder}
    why = "The runs have not all the same test images, so they stand in groups"
    section = grouped_section("The same test images, reconstructed", why, seeing, test_images, unread)
    if blind := [label for label in models if label not in seeing]:
        section.text.append(
            f"{enumerated(blind)}: trained without an encoder, so there is no q(z|x), and no reconstruction."
        )
    for group in grouped(seeing, test_images):
        draw = partial(draw_reconstructions, {label: models[label] for label in group})
        section.draw(draw, "Decoder means at the posterior means of the first test images.")
    return section


def decodings_section(runs: Mapping[str, Overview], models: Mapping[str, Run], unread: Sequence[str]) -> Section:
    """The same draws from the prior through every decoder."""
    found = {label: runs[label] for label in models}
    why = "A z has as many numbers as the latent space has dimensions, and images of other data are no match, so the "
    section = grouped_section("The same z, decoded", f"{why}runs stand in groups", found, latent_space, unread)
    section.text.append("Every model has its own way from z to images: the same z need not show the same image.")
    for group in grouped(found, latent_space):
        draw = partial(draw_decodings, {label: models[label] for label in group})
        section.draw(draw, f"Decoder means at {IMAGES} draws z ~ N(0, I), the same in every row.")
    return section


Facts = Callable[[Overview], Mapping[str, str]]
"""What must be equal for runs to share a picture."""


def conditions(run: Overview) -> dict[str, str]:
    """What must be equal for values in nats to share an axis."""
    return {"data": run.data, **run.test_conditions, "draws of z": str(run.draws)}


def test_images(run: Overview) -> dict[str, str]:
    """What must be equal for the test images to be the same."""
    return {key: value for key, value in conditions(run).items() if key not in ("likelihood", "draws of z")}


def latent_space(run: Overview) -> dict[str, str]:
    """What must be equal for a z to be decoded side by side."""
    return {"data": run.data, "latent_dim": str(run.latent_dim), "image": as_text(run.record.get("image_shape"))}


def grouped_section(
    title: str, why: str, runs: Mapping[str, Overview], facts: Facts, text: Sequence[str] = ()
) -> Section:
    """A section that says which runs share its pictures, where not all do: their data, and in what these differ."""
    firsts = {tuple(group): facts(next(iter(group.values()))) for group in grouped(runs, facts)}
    named = []
    for labels, known in firsts.items():
        others = [other for other in firsts.values() if other["data"] == known["data"]]
        varied = [f"{key}={fact}" for key, fact in known.items() if any(other.get(key) != fact for other in others)]
        named.append(f"{enumerated(labels)} ({', '.join([known['data'], *varied])})")
    return Section(title, [*text, *([f"{why}: {'; '.join(named)}."] if len(named) > 1 else [])])


def draw_reconstructions(models: Mapping[str, Run]) -> Figure:
    """A group's picture of the same test images."""
    first = next(iter(models.values()))
    name = f"Test images, reconstructed: {first.data.name}"
    x = read_test_images(first, IMAGES)
    rows = torch.cat([x, *(run.reconstruct(x) for run in models.values())])
    return labelled_rows(["test image", *models], rows, dark_on_white=dark_on_white_by_default(first), title=name)


def draw_decodings(models: Mapping[str, Run]) -> Figure:
    """A group's picture of the same z."""
    first = next(iter(models.values()))
    z = torch.randn(IMAGES, first.model.latent_dim, generator=generator("cpu", SEED, "compare"))
    name = f"The same z, decoded: {first.data.name}, $N_z = {first.model.latent_dim}$"
    rows = torch.cat([run.decode(z) for run in models.values()])
    return labelled_rows(list(models), rows, dark_on_white=dark_on_white_by_default(first), title=name)
