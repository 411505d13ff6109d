"""The page about one run: result, curve, pictures, KL of every dimension, settings, how to make it again and use it."""

from functools import partial

from vae_lab.figures.run_pictures import PICTURES, dark_on_white_by_default
from vae_lab.figures.side_by_side import TERMS, Line, curves, described, kl_bars, lines_of, terms
from vae_lab.reports.overview import Overview
from vae_lab.reports.pages.command_lines import new_run, recorded, resume
from vae_lab.reports.pages.page import UNREADABLE, Section, reason_of
from vae_lab.reports.pages.reading import Reader
from vae_lab.reports.values import ABSENT, as_text, is_number, number_or_none
from vae_lab.runs.directory import RunDir
from vae_lab.runs.result import (
    DOUBT,
    HIGH_K_HAT,
    SPLITS,
    baseline_keys,
    baseline_name,
    bound_keys,
    doubt,
    draws_behind,
    log_likelihood_keys,
    loss_of,
    other_draws,
    result_of,
    results,
    trained_with,
)
from vae_lab.wiring.table import Cell, Table, number
from vae_lab.wiring.terminal import duration

MAIN = (
    *("data", "data.binarization", "data.batch_size", "model", "model.encoder.hidden", "model.decoder.hidden"),
    *("model.latent_dim", "likelihood", "initialization", "objective", "objective.num_samples", "optimizer"),
    *("optimizer.lr", "schedule", "parameter_prior", "max_samples", "trainer.max_epochs", "seed", "threads"),
)
"""Settings in the table; all are below it."""
SEED = 0
"""The seed of the pictures."""


def run_sections(run: Overview, reader: Reader) -> list[Section]:
    """Everything about a run."""
    return [
        result_section(run),
        curve_section(run),
        pictures_section(run, reader),
        kl_section(run),
        settings_section(run),
        *again_sections(run, reader),
    ]


def title_of(run: Overview) -> str:
    """What tells the run from others: data, network, size of z, and an objective that is not the usual one."""
    objective = str(run.names.get("objective", ABSENT))
    further = [] if objective in ("aevb", ABSENT) else [objective.replace("_", " ")]
    return ", ".join([run.data.replace("_", " "), run.network, f"Nz = {run.latent_dim}", *further])


def headline(run: Overview) -> str:
    """The run in a sentence."""
    result = result_of(run.measured)
    state = run.lack or f"finished, with {run.samples:,} training samples"
    return f"The run is {state}{f': {result} per datapoint' if result else ''}."


def result_section(run: Overview) -> Section:
    """The ledger."""
    ledger, section = run.measured, Section("Result")
    if run.lack:
        section.text.append(f"The run is {run.lack}.")
        if latest := ", ".join(map(str, results(run.measured))):
            section.text.append(f"The last evaluation: {latest} per datapoint.")

    rows: dict[str, dict[str, Cell]] = {}
    for key in (*bound_keys(ledger), *log_likelihood_keys(ledger)):
        split, _, quantity = key.partition("/")
        row = rows.setdefault(split, {})
        for name in ("bound", "reconstruction", "kl") if quantity == "bound" else (quantity,):
            value, error, share = (
                number_or_none(ledger.get(f"{split}/{name}{ending}")) for ending in ("", "_se", HIGH_K_HAT)
            )
            row[name.replace("log_likelihood/", "log p(x) by ")] = number(value, error, doubt(share))
        if quantity == "bound":
            row["active units"] = f"{as_text(ledger.get(f'{split}/active_units', ABSENT))} of {run.latent_dim}"
        row["datapoints"] = as_text(ledger.get(f"{key}_num_datapoints", ledger.get(f"{split}/num_datapoints", "")))
    for key in baseline_keys(ledger):
        if (split := key.partition("/")[0]) in rows:
            rows[split][baseline_name(key)] = number(number_or_none(ledger[key]))
    if not rows:
        section.text.append("Nothing was measured yet.")
        return section
    facts = [as_text(ledger[name]) for name in ("data", "scale", "likelihood") if name in ledger]
    facts += [f"{name} {as_text(ledger[name])}" for name in ("binarization", "split_hash") if name in ledger]
    draws = {split: as_text(draws_behind(ledger, f"{split}/bound")) for split in rows}
    facts += [f"{split} bound with {num} draws of z" for split, num in draws.items() if num != "1"]
    count = ledger.get("samples_evaluated")
    weights = f"{run.checkpoint}.ckpt" if ledger is run.ledger else "the last evaluation"
    place = f"{weights}, {f'{count:,.0f}' if is_number(count) else ABSENT} training samples"
    facts += [f"bounds of a training with {loss}"] if (loss := loss_of(run.settings)) else []
    caption = f"Nats per datapoint ({'; '.join(filter(None, [place, ', '.join(facts)]))}); "
    caption += "±: the Monte Carlo error, with the data held fixed."
    columns = list(dict.fromkeys(name for row in rows.values() for name, cell in row.items() if cell))
    cells = [[split, *(row.get(name, "") for name in columns)] for split, row in rows.items()]
    if any(ledger.get(f"{key}{HIGH_K_HAT}") for key in log_likelihood_keys(ledger)):
        caption = f"{caption}\n{DOUBT}"
    section.tables = [Table(("split", *columns), cells, caption)]
    return section


def curve_section(run: Overview) -> Section:
    """Bound and log p(x) against training samples."""
    section, title = Section("Curve"), f"{run.data}, $N_z = {run.latent_dim}$"
    if lines := lines_of(run.curve, "bound"):
        loss = trained_with(loss_of(run.settings))
        caption = f"{'One draw' if run.draws == 1 else f'{run.draws} draws'} of z for each datapoint; train: the mean "
        caption += f"over the minibatches since the last evaluation{other_draws(run.settings)}{loss}."
        draw = partial(curves, lines, title=title, quantity="bound")
        section.draw(draw, caption, alt=described(lines, f"Bound{loss}"), pdf=True)
        both = [(name, lines_of(run.curve, term)) for term, name in TERMS.items()]
        if all(found for _, found in both):
            alt = "; ".join(described(found, name) for name, found in both)
            section.draw(partial(terms, run.curve, title=title), "Bound = reconstruction - KL.", alt=alt, pdf=True)
    columns = dict.fromkeys(key for row in run.curve for key in row)
    estimates = log_likelihood_keys(columns)
    look = zip(estimates, ("tab:blue", "black", "tab:red"), strict=False)
    if lines := [Line(key.partition("/")[0], *run.series(key), colour) for key, colour in look]:
        caption = f"log p(x) by {estimates[0].rpartition('/')[2]}, of the first datapoints of each split."
        draw = partial(curves, lines, title=title, quantity="log p(x)")
        section.draw(draw, caption, alt=described(lines, "log p(x)"), pdf=True)
    if not section.pictures:
        section.text.append("No evaluation has been written yet.")
    return section


def pictures_section(run: Overview, reader: Reader) -> Section:
    """What the model draws."""
    section = Section("Pictures")
    try:
        model = reader.load(run)
        dark_on_white = dark_on_white_by_default(model)
    except UNREADABLE as error:
        section.text.append(f"There are none: {reason_of(error)}.")
        return section
    for name, draw in PICTURES.items():
        if name != "bound_curve":
            picture = partial(draw, model, dark_on_white=dark_on_white, seed=SEED)
            name = name.replace("_", " ")
            section.draw(picture, alt=(draw.__doc__ or name).partition("\n")[0], otherwise=f"Without {name}")
    return section


def kl_section(run: Overview) -> Section:
    """KL(q(z_j|x) || p(z_j)) of every dimension."""
    section = Section("KL of every dimension")
    found = {split: run.ledger.get(f"{split}/kl_per_dimension") for split in SPLITS}
    split, values = next(((split, values) for split, values in found.items() if isinstance(values, list)), ("", []))
    values = [value for value in values if is_number(value)]
    if not values:
        section.text.append("None is known: the run has no encoder, or was not measured yet.")
        return section
    used = sum(value >= 0.01 for value in values)
    have = "dimensions has" if used == 1 else "dimensions have"
    section.text.append(
        f"{sum(values):.2f} nats in all, on the {split} split; {used} of {len(values)} {have} 0.01 or more."
    )
    draw = partial(kl_bars, values, title=f"KL(q(z|x) || p(z)) by dimension: {run.data}")
    alt = f"Bars of the KL of {len(values)} dimensions of z, from {max(values):.2f} to {min(values):.2f} nats"
    section.draw(draw, "Most first; dimensions are counted from 0.", alt=alt, pdf=True)
    section.details = {"The numbers": "\n".join(f"z_{j:<4} {value:9.4f}" for j, value in enumerate(values))}
    return section


def settings_section(run: Overview) -> Section:
    """What the run is, in short and as a whole; where and with what it was made."""
    known, record = {**run.settings, **run.names}, run.record
    versions = record.get("versions")
    seconds = {"time": record.get("wall_seconds"), "of it evaluation": record.get("evaluation_seconds")}
    made = {
        "directory": str(run.path),
        "status": run.status,
        "data": record.get("data_notes") or None,
        "config hash": record.get("config_hash"),
        "device": record.get("device"),
        **{name: duration(value) for name, value in seconds.items() if is_number(value)},
        "git commit": record.get("git_commit"),
        "python": record.get("python"),
        **(versions if isinstance(versions, dict) else {}),
    }
    tables = [
        Table(("setting", "value"), [[key, as_text(known[key])] for key in MAIN if key in known]),
        Table(("made", "with"), [[name, as_text(value)] for name, value in made.items() if value is not None]),
    ]
    layers, num = record.get("layers"), record.get("num_parameters")
    if isinstance(layers, list) and is_number(num):
        cells = [list(map(as_text, layer)) for layer in layers if isinstance(layer, list) and len(layer) == 3]
        tables.append(Table(("layer", "what it is", "parameters"), cells, f"The model has {num:,} parameters."))
    whole = RunDir(run.path).config_text()
    return Section("Settings", tables=tables, details={"All settings: config.yaml": whole})


def again_sections(run: Overview, reader: Reader) -> list[Section]:
    """Command lines and Python to make the run again, to go on with it, and to use it."""
    new, exact = new_run(run), recorded(run)
    text = "A new run with the same settings" if new else "The directory does not say what was asked for"
    text += "; then the command line that ran last, as it was typed." if exact and exact != new else "."
    text += " On the same machine and with the same number of threads it computes the same."
    how = "Finished: a larger budget extends it." if run.is_finished else "It goes on where it stopped."
    if run.status == "running":
        how = "A process is at work on it; after an interruption this goes on where it stopped."
    arguments = [repr(str(run.path)), *(f"{name}={value!r}" for name, value in reader.arguments.items())]
    load = f"from vae_lab import load_run\n\nrun = load_run({', '.join(arguments)})\n"
    load += "images = run.sample(16)\nmeans = run.encode(run.data.splits['test'].images)  # q(z|x)"
    use = [RunDir(run.path).command(command) for command in ("evaluate", "plot")]
    return [
        Section("Reproduce", [text], list(dict.fromkeys(filter(None, (new, exact))))),
        Section("Resume", [how], [resume(run)]),
        Section("Load", ["In Python, and on the command line."], [load, *use]),
    ]
