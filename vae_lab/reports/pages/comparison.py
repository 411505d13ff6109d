"""The page that holds runs against each other: settings, results, curves, the same images, the same z."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from matplotlib.figure import Figure

from vae_lab.figures.run_facts import dark_on_white_by_default, read_test_images
from vae_lab.figures.side_by_side import Line, colours, curves, shared_decodings, shared_reconstructions
from vae_lab.randomness import generator
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import Overview, grouped
from vae_lab.reports.pages.page import Picture, Section
from vae_lab.reports.pages.run_parts import Reader, add_picture, in_words, listed, title
from vae_lab.reports.table import Table, number
from vae_lab.reports.values import ABSENT, as_text, letters
from vae_lab.runs.load import Run

IMAGES = 10
"""In a row of the pictures."""
SEED = 0
"""Of the shared z."""
BOUNDS = ("test/bound", "val/bound")
"""Columns of the curve that are drawn, the first that there is."""
COMMON = ("test/bound", "val/bound", "train/bound", "test/reconstruction", "test/kl", "test/active_units")
WORDS = {"no": "not comparable with", "in part": "comparable only in part with"}
MOST_WORDS, MOST_COLUMNS = 4, 6
"""Settings that name a curve, and that have columns of their own beside the section on what differs."""


def comparison_sections(found: Sequence[Overview], left_out: Sequence[str], reader: Reader) -> list[Section]:
    """Everything about these runs beside each other, lettered in their order."""
    runs = {letters(i): run for i, run in enumerate(found)}
    models, unread = reader.models(runs)
    return [
        runs_section(runs, left_out),
        results_section(runs),
        differences_section(runs),
        curves_section(runs),
        reconstructions_section(runs, models, unread),
        decodings_section(runs, models, unread),
    ]


def distinguishing_names(runs: Sequence[Overview]) -> list[str]:
    """What tells each run from the others, in few words."""
    columns = list(Runs(runs).distinctions().items())
    chosen = dict([*columns[: MOST_WORDS - 1], *columns[MOST_WORDS - 1 :][-1:]])
    return [in_words(chosen, i) for i in range(len(runs))]


def runs_section(runs: Mapping[str, Overview], left_out: Sequence[str]) -> Section:
    """Which run is which."""
    columns = list(Runs(list(runs.values())).distinctions().items())
    varied = dict([*columns[: MOST_COLUMNS - 1], *columns[MOST_COLUMNS - 1 :][-1:]])
    rows = [
        [label, run.status, f"{run.samples:,}", *(texts[i] for texts in varied.values()), str(run.path)]
        for i, (label, run) in enumerate(runs.items())
    ]
    lacks = [f"{label} is {run.lack}: its values are the last on its curve." for label, run in runs.items() if run.lack]
    text = [*lacks, *(f"Left out: {reason}." for reason in left_out)]
    caption = "Training samples presented; the settings that tell the runs apart best; the run directory."
    names = ("run", "status", "samples", *map(title, varied), "directory")
    table = Table(names, rows, caption)
    return Section("Runs", text=text, tables=[table])


def results_section(runs: Mapping[str, Overview]) -> Section:
    """The ledgers beside each other, and which of them cannot be compared."""
    first, reference = next(iter(runs.items()))
    likelihoods = list(dict.fromkeys(key for run in runs.values() for key in log_likelihoods(run)))
    keys = [key for key in COMMON if any(run.value(key) is not None for run in runs.values())]
    rows, reasons = [], {}
    for label, run in runs.items():
        verdict, reason = comparable(run, reference, first) if run is not reference else (ABSENT, "")
        reasons.setdefault((verdict, reason), []).append(label)
        cells = [number(run.value(key), places=0 if key.endswith("active_units") else 2) for key in keys]
        errors = [number(run.value(key), run.value(f"{key}_se")) for key in likelihoods]
        rows.append([label, verdict, *cells, *errors, run.checkpoint])
    text = [f"{listed(labels)}: {WORDS[verdict]} {first}: {why}." for (verdict, why), labels in reasons.items() if why]
    without = [label for label, run in runs.items() if run.value("test/bound") is None]
    if without:
        text.append(f"{listed(without)}: no bound on the test part (no encoder, or not measured yet).")
    titles = [
        key.replace("/log_likelihood/", " log p(x), ").replace("/", " ").replace("active_units", "active units")
        for key in (*keys, *likelihoods)
    ]
    caption = (
        "Nats per datapoint, with the weights of the checkpoint; ± is the Monte Carlo error with the data held fixed. "
        "The bound with more draws of z is the same quantity with less noise; estimates of log p(x) depend on "
        "estimator and K."
    )
    table = Table(("run", f"comparable with {first}", *titles, "checkpoint"), rows, caption)
    return Section("Results", text=text, tables=[table])


def log_likelihoods(run: Overview) -> list[str]:
    """The entries with an estimate of log p(x)."""
    entries = run.ledger if run.is_finished else dict(run.curve[-1]) if run.curve else {}
    return [key for key in entries if "/log_likelihood/" in key and f"{key}_se" in entries]


def comparable(run: Overview, reference: Overview, name: str) -> tuple[str, str]:
    """Whether values of a run mean the same as those of the reference: yes, no or in part; and why not."""
    if run.data != reference.data:
        return "no", f"another data set, {run.data} ({name}: {reference.data})"
    sizes = [as_text(each.settings.get("data.train_size")) for each in (run, reference)]
    ours, theirs = run.test_conditions, reference.test_conditions
    for fact in ("scale", "split_hash") if sizes[0] == sizes[1] else ("scale",):
        if fact in run.ledger and fact in reference.ledger:
            ours[fact], theirs[fact] = str(run.ledger[fact]), str(reference.ledger[fact])
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if ours.get(key) != theirs.get(key)]
    if keys:
        return "no", ", ".join(f"{key}={ours.get(key, ABSENT)} ({name}: {theirs.get(key, ABSENT)})" for key in keys)
    reasons = []
    if sizes[0] != sizes[1]:
        reasons.append(f"train values of other datapoints, data.train_size={sizes[0]} ({name}: {sizes[1]})")
    estimates = log_likelihoods(run), log_likelihoods(reference)
    if all(estimates) and not set(estimates[0]) & set(estimates[1]):
        ours_by, theirs_by = (listed([key.replace("/log_likelihood/", " by ") for key in keys]) for keys in estimates)
        reasons.append(f"log p(x) by another estimator, K or subset, {ours_by} ({name}: {theirs_by})")
    if run.draws("test") != reference.draws("test"):
        reasons.append(f"a bound with {run.draws('test')} draws of z ({name}: {reference.draws('test')})")
    return ("in part" if reasons else "yes"), "; ".join(reasons)


def differences_section(runs: Mapping[str, Overview]) -> Section:
    """The keys that the configs disagree in."""
    table = Runs(list(runs.values()))
    found = table.differences()
    if not found:
        return Section("What differs", text=["Nothing: the configs are equal."])
    rows = [[key, *(shortened(text) if key.endswith("_target_") else text for text in found[key])] for key in found]
    important = [row for row in rows if table.matters(row[0])]
    others = [row for row in rows if row not in important]
    columns = ("key", *runs)
    tables = [Table(columns, important, "From config.yaml; all other settings are equal.")] if important else []
    if others:
        tables.append(Table(columns, others, "These change nothing in what is computed, but for rounding."))
    return Section("What differs", tables=tables)


def shortened(target: str) -> str:
    """The class that a `_target_` names, without the modules of vae_lab."""
    return target.rpartition(".")[2] if target.startswith("vae_lab.") else target


def curves_section(runs: Mapping[str, Overview]) -> Section:
    """The curves over each other: a picture for every quantity and every group of runs that are comparable."""
    groups = grouped(runs, lambda run: (run.data, run.test_conditions))
    text, pictures = [], []
    if len(groups) > 1:
        named = named_groups(groups, lambda run: run.test_conditions)
        text.append(f"Nats of other data, binarisation or likelihood share no axis: {named}.")
    for group in groups:
        names = distinguishing_names(list(group.values()))
        for key in curve_keys(group):
            lines = []
            for (label, run), name, colour in zip(group.items(), names, colours(len(group)), strict=True):
                lines.append(Line(f"{label}  {name}".strip(), *run.series(key), colour))
                if key in BOUNDS:
                    running = run.series("train/bound_running")
                    lines.append(Line(label, *running, colour, ":", is_named=False))
            lines = [line for line in lines if line.samples]
            data = next(iter(group.values())).data
            quantity = "bound" if key in BOUNDS else "log p(x)"
            split, _, estimator = key.partition("/log_likelihood/")
            caption = f"log p(x) on {split} by {estimator}."
            if key in BOUNDS:
                caption = f"{key}; thin dots: the running mean over training minibatches."
            add_picture(pictures, text, partial(curves, lines, title=data, quantity=quantity), caption)
    if empty := [label for label, run in runs.items() if not run.curve]:
        text.append(f"Not evaluated yet: {listed(empty)}.")
    return Section("Curves", text=text, pictures=pictures)


def curve_keys(group: Mapping[str, Overview]) -> list[str]:
    """The columns that are drawn of a group's curves."""
    columns = list(dict.fromkeys(key for run in group.values() for row in run.curve for key in row))
    bounds = [key for key in BOUNDS if key in columns][:1]
    likelihoods = [key for key in columns if key.startswith("test") and "/log_likelihood/" in key]
    return [*bounds, *(key for key in likelihoods if not key.endswith("_se"))]


def reconstructions_section(
    runs: Mapping[str, Overview], models: Mapping[str, Run], unread: Mapping[str, str]
) -> Section:
    """The same test images through every encoder and decoder."""
    text = [f"{label} has none: {reason}." for label, reason in unread.items()]
    blind = [label for label, model in models.items() if not model.model.has_encoder]
    if blind:
        text.append(f"{listed(blind)}: trained without an encoder, so there is no q(z|x), and no reconstruction.")
    groups = grouped({label: runs[label] for label in models if label not in blind}, test_images)
    if len(groups) > 1:
        text.append(
            f"The runs have not all the same test images, so they stand in groups: {named_groups(groups, test_images)}."
        )
    pictures: list[Picture] = []
    for group in groups:
        draw = partial(draw_reconstructions, {label: models[label] for label in group})
        add_picture(pictures, text, draw, "Decoder means at the posterior means of the first test images.")
    return Section("The same test images, reconstructed", text=text, pictures=pictures)


def decodings_section(runs: Mapping[str, Overview], models: Mapping[str, Run], unread: Mapping[str, str]) -> Section:
    """The same draws from the prior through every decoder."""
    text = [f"{label} has none: {reason}." for label, reason in unread.items()]
    text.append("Every model has learned its own way from z to images: the same z need not show the same image.")
    groups = grouped({label: runs[label] for label in models}, latent_space)
    if len(groups) > 1:
        text.append(
            "A z has as many numbers as the latent space has dimensions, and images of other data are no match, so the "
            f"runs stand in groups: {named_groups(groups, latent_space)}."
        )
    pictures: list[Picture] = []
    for group in groups:
        draw = partial(draw_decodings, {label: models[label] for label in group})
        add_picture(pictures, text, draw, f"Decoder means at {IMAGES} draws z ~ N(0, I), the same in every row.")
    return Section("The same z, decoded", text=text, pictures=pictures)


def test_images(run: Overview) -> dict[str, str]:
    """What must be equal for the test images to be the same."""
    return {key: value for key, value in run.test_conditions.items() if key != "likelihood"}


def latent_space(run: Overview) -> dict[str, str]:
    """What must be equal for a z to be decoded side by side."""
    return {"data": run.data, "Nz": str(run.latent_dim), "image": as_text(run.record.get("image_shape"))}


def draw_reconstructions(models: Mapping[str, Run]) -> Figure:
    """A group's picture of the same test images."""
    first = next(iter(models.values()))
    name = f"Test images, reconstructed: {first.data.name}"
    x = read_test_images(first, IMAGES)
    return shared_reconstructions(models, x, dark_on_white=dark_on_white_by_default(first), title=name)


def draw_decodings(models: Mapping[str, Run]) -> Figure:
    """A group's picture of the same z."""
    first = next(iter(models.values()))
    z = torch.randn(IMAGES, first.model.latent_dim, generator=generator("cpu", SEED, "compare"))
    name = f"The same z, decoded: {first.data.name}, $N_z = {first.model.latent_dim}$"
    return shared_decodings(models, z, dark_on_white=dark_on_white_by_default(first), title=name)


def named_groups(groups: Sequence[Mapping[str, Overview]], facts: Callable[[Overview], Mapping[str, str]]) -> str:
    """The groups, each with its data set and what tells it from the others with this data set."""
    firsts = [next(iter(group.values())) for group in groups]
    found = [(run.data, facts(run)) for run in firsts]
    texts = []
    for group, (data, fact) in zip(groups, found, strict=True):
        others = [other for name, other in found if name == data and other is not fact]
        varied = [f"{key}={text}" for key, text in fact.items() if any(other.get(key) != text for other in others)]
        texts.append(f"{listed(list(group))} ({', '.join([data, *varied])})")
    return "; ".join(texts)
