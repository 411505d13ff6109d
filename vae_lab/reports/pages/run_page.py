"""The page about one run: result, curve, pictures, KL of every dimension, settings, how to make it again and use it."""

import shlex
from functools import partial
from pathlib import Path

from vae_lab.figures.run_facts import dark_on_white_by_default, nats
from vae_lab.figures.run_pictures import LINES, PICTURES
from vae_lab.figures.side_by_side import Line, curves, kl_bars
from vae_lab.reports.overview import Overview
from vae_lab.reports.pages.page import Details, Picture, Section
from vae_lab.reports.pages.run_parts import (
    UNREADABLE,
    Reader,
    add_picture,
    drawn,
    override,
    pasted,
    reason_of,
    resume,
)
from vae_lab.reports.table import Cell, Table, number
from vae_lab.reports.values import ABSENT, as_text, is_number, number_or_none
from vae_lab.runs.identity import BUDGET, Kind, kind_of
from vae_lab.wiring.terminal import duration

SPLITS = ("train", "val", "test")
MAIN = {
    "data": "data set",
    "data.binarization": "binarisation",
    "data.batch_size": "minibatch",
    "model": "network",
    "model.encoder.hidden": "hidden units, encoder",
    "model.decoder.hidden": "hidden units, decoder",
    "model.latent_dim": "latent dimensions (Nz)",
    "likelihood": "likelihood",
    "initialization": "initialisation",
    "objective": "objective",
    "objective.num_samples": "draws in the objective",
    "optimizer": "optimizer",
    "optimizer.lr": "step size",
    "schedule": "schedule of the step size",
    "parameter_prior": "prior on the weights",
    "max_samples": "budget in samples",
    "trainer.max_epochs": "budget in epochs",
    "seed": "seed",
    "threads": "threads",
}
"""Settings in the table -> how they are printed; all are below it."""
SEED = 0
"""Of the pictures."""


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


def headline(run: Overview) -> str:
    """The run in a sentence."""
    objective = run.names.get("objective", ABSENT)
    what = f"{run.data}, {run.network}, {run.latent_dim} latent dimensions, objective {objective}"
    bound = run.value("test/bound")
    result = f": test bound {nats(bound)} nats per datapoint" if bound is not None else ""
    return f"{what}{result}. The run is {run.lack or f'finished, with {run.samples:,} training samples'}."


def result_section(run: Overview) -> Section:
    """The ledger."""
    ledger, rows, estimates = run.ledger, [], []
    for key in ledger:
        split, _, quantity = key.partition("/")
        count = as_text(ledger.get(f"{key}_num_datapoints", ledger.get(f"{split}/num_datapoints", "")))
        if quantity == "bound":
            values = [measured(run, f"{split}/{name}") for name in ("bound", "reconstruction", "kl")]
            active = f"{as_text(ledger.get(f'{split}/active_units', ABSENT))} of {run.latent_dim}"
            rows.append([split, *values, active, count])
        elif f"{key}_se" in ledger and "/log_likelihood/" in key:
            estimates.append([split, quantity.removeprefix("log_likelihood/"), measured(run, key), count])
    text = [] if run.is_finished else [f"The run is {run.lack}."]
    if not run.is_finished and (
        latest := [f"{key} {nats(row)}" for key in LINES if (row := run.value(key)) is not None]
    ):
        text.append(f"The last evaluation: {', '.join(latest)} nats per datapoint.")
    if not rows and not estimates:
        return Section("Result", text=[*text, f"Nothing was measured yet with the weights of {run.checkpoint}.ckpt."])
    facts = [as_text(ledger[name]) for name in ("data", "scale", "likelihood") if name in ledger]
    facts += [f"{name} {as_text(ledger[name])}" for name in ("binarization", "split_hash") if name in ledger]
    facts += [f"{split} bound with {num} draws of z" for split in SPLITS if (num := run.draws(split)) != 1]
    count = ledger.get("samples_evaluated")
    place = f"{run.checkpoint}.ckpt, {f'{count:,}' if is_number(count) else ABSENT} training samples"
    caption = f"Nats per datapoint ({place}; {', '.join(facts)}); ±: the Monte Carlo error, with the data held fixed."
    bounds = Table(("part", "bound", "reconstruction", "KL", "active units", "datapoints"), rows, caption)
    others = Table(("part", "log p(x) by", "mean", "datapoints"), estimates, caption)
    return Section("Result", text=text, tables=[table for table in (bounds, others) if table.rows])


def measured(run: Overview, key: str) -> Cell:
    """An entry of the ledger with its error."""
    return number(number_or_none(run.ledger.get(key)), number_or_none(run.ledger.get(f"{key}_se")))


def curve_section(run: Overview) -> Section:
    """Bound or log p(x) against training samples."""
    pictures: list[Picture] = []
    text: list[str] = []
    lines = [Line(label, *run.series(key), colour, dashes) for key, (label, colour, dashes) in LINES.items()]
    name = f"{run.data}, $N_z = {run.latent_dim}$"
    if any(line.samples for line in lines):
        shown = [line for line in lines if line.samples]
        caption = "Train: the mean over the minibatches since the last evaluation."
        add_picture(pictures, text, partial(curves, shown, title=name, quantity="bound"), caption)
    columns = dict.fromkeys(key for row in run.curve for key in row)
    estimates = [key for key in columns if "/log_likelihood/" in key and not key.endswith("_se")]
    lines = [
        Line(key.partition("/")[0], *run.series(key), colour)
        for key, colour in zip(estimates, ("tab:blue", "black", "tab:red"), strict=False)
    ]
    if lines:
        caption = f"log p(x) by {estimates[0].rpartition('/')[2]}, of the first datapoints of each part."
        add_picture(pictures, text, partial(curves, lines, title=name, quantity="log p(x)"), caption)
    if not pictures:
        text.append("No evaluation has been written yet.")
    return Section("Curve", text=text, pictures=pictures)


def pictures_section(run: Overview, reader: Reader) -> Section:
    """What the model draws."""
    try:
        model = reader.load(run)
        dark_on_white = dark_on_white_by_default(model)
    except UNREADABLE as error:
        return Section("Pictures", text=[f"There are none: {reason_of(error)}."])
    text, pictures = [], []
    for name, draw in PICTURES.items():
        if name != "bound_curve":
            content = drawn(partial(draw, model, dark_on_white=dark_on_white, seed=SEED))
            if isinstance(content, bytes):
                pictures.append(Picture(content))
            else:
                text.append(f"Without {name.replace('_', ' ')}: {content}.")
    return Section("Pictures", text=text, pictures=pictures)


def kl_section(run: Overview) -> Section:
    """KL(q(z_j|x) || p(z_j)) of every dimension."""
    name = "KL of every dimension"
    found = {split: run.ledger.get(f"{split}/kl_per_dimension") for split in reversed(SPLITS)}
    split, values = next(((split, values) for split, values in found.items() if isinstance(values, list)), ("", []))
    values = [value for value in values if is_number(value)]
    if not values:
        return Section(name, text=["None is known: the run has no encoder, or was not measured yet."])
    used = sum(value >= 0.01 for value in values)
    what = f"{sum(values):.2f} nats in all, on the {split} part; {used} of {len(values)} dimensions have 0.01 or more."
    title = f"KL(q(z|x) || p(z)) by dimension: {run.data}"
    pictures: list[Picture] = []
    text = [what]
    add_picture(pictures, text, partial(kl_bars, values, title=title), "Most first; dimensions are counted from 0.")
    numbers = "\n".join(f"z_{j:<4} {value:9.4f}" for j, value in enumerate(values))
    return Section(name, text=text, pictures=pictures, details=[Details("The numbers", numbers)])


def settings_section(run: Overview) -> Section:
    """What the run is, in short and as a whole; where and with what it was made."""
    known = {**run.settings, **run.names}
    rows = [[name, as_text(known[key])] for key, name in MAIN.items() if key in known]
    record = run.record
    versions = record.get("versions")
    made = {
        "status": run.status,
        "config hash": record.get("config_hash"),
        "device": record.get("device"),
        "time": duration(seconds) if is_number(seconds := record.get("wall_seconds")) else None,
        "of it evaluation": duration(seconds) if is_number(seconds := record.get("evaluation_seconds")) else None,
        "git commit": record.get("git_commit"),
        "python": record.get("python"),
        **(versions if isinstance(versions, dict) else {}),
    }
    made_rows = [[name, as_text(value)] for name, value in made.items() if value is not None]
    tables = [Table(columns, pairs) for columns, pairs in ((("setting", "value"), rows), (("made", "with"), made_rows))]
    whole = (run.path / "config.yaml").read_text(encoding="utf-8")
    return Section("Settings", tables=tables, details=[Details("All settings: config.yaml", whole)])


def again_sections(run: Overview, reader: Reader) -> list[Section]:
    """Command lines and Python to make the run again, to go on with it, and to use it."""
    new, exact = new_run_command(run), recorded_command(run)
    text = "A new run with the same settings" if new else "The directory does not say what was asked for"
    text += "; then the command line that ran last, as it was typed." if exact and exact != new else "."
    text += " On the same machine and with the same number of threads it computes the same."
    reproduce = list(dict.fromkeys(text for text in (new, exact) if text))
    path = str(run.path)
    extra = [f"{name}={value!r}" for name, value in reader.arguments.items()]
    load = f"from vae_lab import load_run\n\nrun = load_run({', '.join([repr(path), *extra])})\n"
    load += "images = run.sample(16)\nmeans = run.encode(run.data.parts['test'].images)  # q(z|x)"
    if run.status == "running":
        how = "A process is at work on it; after an interruption this goes on where it stopped."
    else:
        how = "Finished: a larger budget extends it." if run.is_finished else "It goes on where it stopped."
    use = [pasted(command, override("run", path)) for command in ("evaluate", "plot")]
    return [
        Section("Reproduce", text=[text], code=reproduce),
        Section("Resume", text=[how], code=[extension(run) if run.is_finished else resume(run)]),
        Section("Load", text=["In Python, and on the command line."], code=[load, *use]),
    ]


def new_run_command(run: Overview) -> str | None:
    """What trains a new run with the same settings; None where the directory does not say."""
    given = run.record.get("overrides")
    if not isinstance(given, list):
        return None
    typed = [str(text) for text in given]
    latest = [*BUDGET, "threads"]  # a continuation changes these; the jobs of a sweep are given their threads
    kept = [text for text in typed if kind_of(key := key_of(text)) is not Kind.COMMAND and key not in latest]
    values = {key: run.settings[key] for key in latest if key in run.settings}
    now = [f"{key}={as_text(value)}" for key, value in values.items() if key in BUDGET or value is not None]
    return pasted("train", *kept, *now)


def recorded_command(run: Overview) -> str | None:
    """The command line of run.json."""
    command = run.record.get("command")
    if not isinstance(command, list) or not command:
        return None
    program, *arguments = map(str, command)
    if Path(program).name == "vae-lab" or Path(program).parts[-2:] == ("vae_lab", "__main__.py"):
        program = "vae-lab"
    return shlex.join([program, *arguments])


def key_of(text: str) -> str:
    """The key of an override, without the signs of Hydra's grammar."""
    return text.lstrip("+~").partition("=")[0].partition("@")[0]


def extension(run: Overview) -> str:
    """The command that trains a finished run twice as long."""
    samples, epochs = (run.settings.get(key) for key in BUDGET)
    if is_number(samples):
        larger = [f"{BUDGET[0]}={as_text(2 * samples)}", *([f"{BUDGET[1]}=null"] if epochs is not None else [])]
    else:
        larger = [f"{BUDGET[1]}={as_text(2 * epochs)}"] if is_number(epochs) else []
    return " ".join([resume(run), *larger])
