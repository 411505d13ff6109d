"""Command lines that nobody should type: refused in a message, or carried out."""

from campaigns.trials import TINY, Trial, content_of, copy_of, expect, run

VALUES = (
    *("", "null", "0", "-1", "1e9", "1e400", "nan", "inf", "-inf", "true", "abc", "[]", "[1]", "[a,b]", "{}", "{a:1}"),
    *(
        "'",
        '"',
        "${x}",
        "${oc.env:HOME}",
        "${seed}",
        "???",
        "1000000000000",
        "0.5",
        "1e-9",
        "2024_01_01x",
        "/proc/x",
        "~",
    ),
    *(
        "/dev/null",
        "*",
        "..",
        " ",
        "\t",
        "\n",
        "é",
        "\x1b[31m",
        "a=b",
        "a,b",
        "1:2",
        "range(3)",
        "choice(1,2)",
        "glob(*)",
    ),
)
TRAIN_KEYS = (
    *(
        "seed",
        "threads",
        "max_samples",
        "steps_per_execution",
        "matmul_backend",
        "compile",
        "cuda_graph",
        "channels_last",
    ),
    *("model", "model.latent_dim", "model.encoder.hidden", "model.encoder.activation", "model._target_", "likelihood"),
    *("data", "data.batch_size", "data.train_size", "data.binarization", "data.split_seed", "data._target_"),
    *(
        "optimizer",
        "optimizer.lr",
        "optimizer.betas",
        "schedule",
        "objective",
        "objective.num_samples",
        "initialization",
    ),
    *(
        "trainer",
        "trainer.max_epochs",
        "trainer.devices",
        "trainer.precision",
        "trainer.accelerator",
        "trainer.strategy",
    ),
    *("trainer.max_time", "callbacks", "logger", "evaluation.first", "evaluation.per_decade", "evaluation.splits"),
    *("evaluation.num_samples", "checkpoint.at", "checkpoint.every_seconds", "early_stopping.patience", "sweep.jobs"),
    *("parameter_prior", "gradient_clip_norm", "name", "run_dir", "output_root", "allow", "expected", "experiment"),
    *("smoke", "hydra.run.dir", "hydra.sweep.dir", "hydra.mode", "hydra.verbose", "nope", "", "model.", ".", "a.b.c"),
)
OTHER_KEYS = {
    "evaluate": "run estimators estimator estimator.num_samples splits num_datapoints checkpoint num_samples seed "
    "device threads data_root allow save nope",
    "plot": "run checkpoint pictures seed threads allow dark_on_white data_root nope",
    "runs": "root where sort columns over group format limit out nope",
    "compare": "run out checkpoint images nope",
    "report": "run out checkpoint nope",
    "verify": "run scale root data_root allow nope",
    "figure": "figure scale runs root data_root out nope",
    "reproduce": "scale root jobs figures dry_run nope",
}
FLAGS = (
    "-m",
    "--cfg=job",
    "--cfg",
    "-c",
    "--help",
    "--info",
    "--resolve",
    "--config-name=x",
    "--config-dir=/",
    "--",
    "-x",
)
KEPT_BUDGET = ("max_samples=200", "sweep.dry_run=true", "smoke=on")
"""Whatever else is asked for, no trial trains for long."""


def lines(trial: Trial) -> str:
    """A command line with one to three keys that are not what they should be."""
    random = trial.random
    run_dir = copy_of(trial, "plain", "good/run")
    before = content_of(run_dir.path)
    command = random.choice(["train", "train", "train", *OTHER_KEYS])
    keys = TRAIN_KEYS if command == "train" else OTHER_KEYS[command].split()
    given: list[str] = []
    for _ in range(random.choice([1, 1, 2, 3])):
        key, value = random.choice(keys), random.choice(VALUES)
        form = random.choice(["{k}={v}"] * 8 + ["+{k}={v}", "++{k}={v}", "~{k}", "{k}", "{k}:{v}", "{v}={k}"])
        given.append(form.format(k=key, v=value))
    flags = [random.choice(FLAGS)] if random.random() < 0.15 else []
    if command == "train":
        arguments = [command, *TINY, "trainer.max_epochs=1", *given, *flags, *KEPT_BUDGET]
    elif command in ("figure", "reproduce"):
        arguments = [command, *given, *flags]
        if command == "reproduce":
            arguments += ["dry_run=true", "speed_seconds=0"]
    else:
        arguments = [
            command,
            *([] if random.random() < 0.2 else [f"run={run_dir.path}"] * (command != "runs")),
            *given,
            *flags,
        ]
    ended = run(trial, *arguments, codes=[0, 1, 2] if command in ("verify", "figure") else [0, 2])
    if ended.code == 2:
        left = [path for path in content_of(trial.folder) if not path.startswith("good")]
        expect(not left, f"a refusal leaves nothing behind, and left {left}", ended)
        expect(content_of(run_dir.path) == before, "a refusal changes nothing", ended)
    return " ".join(arguments[1:])
