"""Processes: how soon one begins, how much memory it takes, what two at once gain."""

from benchmarks.comparisons import difference, ratio
from benchmarks.conditions import Conditions
from benchmarks.lab import train_config, training_images
from benchmarks.processes import CHILD, PeakMemory, ProcessTime, SeveralTrainings
from benchmarks.sides import Case


def startup(conditions: Conditions) -> Case:
    """Seconds until the help is there, and until the optimiser's first step, beside imports that nobody avoids."""
    training_images("mnist")
    train = ["first_step", *train_arguments(conditions)]
    return Case(
        "from the start of a process",
        "s",
        [
            ProcessTime("vae-lab --help", ["-m", "vae_lab", "--help"]),
            ProcessTime("import hydra", ["-c", "import hydra"]),
            ProcessTime("train, first step", [*CHILD, *train]),
            ProcessTime("import pytorch_lightning", ["-c", "import pytorch_lightning"]),
        ],
        [
            ratio("vae-lab --help", "import hydra", at_most=3),
            ratio("train, first step", "import pytorch_lightning", at_most=2),
        ],
        most_repeats=3,
    )


def memory(conditions: Conditions) -> Case:
    """Peaks of an epoch of experiment=mnist and of importance sampling, above those of a process with their imports."""
    training_images("mnist")
    train = ["train", *train_arguments(conditions), "trainer.max_epochs=1"]
    training = PeakMemory("train experiment=mnist", "command", train, conditions)
    estimates = [
        PeakMemory(f"K = {k}, N = {n}", "estimate", [str(k), str(n), str(conditions.threads)], conditions)
        for k, n in ((5000, 50), (500, 500), (50000, 5))
    ]
    imports = [imports_of(training, conditions), imports_of(estimates[0], conditions)]
    return Case(
        "peak of memory, of a training and of importance sampling with K samples for N datapoints",
        "MB",
        [training, imports[0], estimates[0], imports[1], *estimates[1:]],
        [
            difference(training.name, imports[0].name, at_most=450, name="train experiment=mnist above its imports"),
            *[
                difference(side.name, imports[1].name, at_most=250, name=f"{side.name}, above its imports")
                for side in estimates
            ],
        ],
        most_repeats=1,
    )


def imports_of(side: PeakMemory, conditions: Conditions) -> PeakMemory:
    """The peak of a process that imports the same modules."""
    return PeakMemory(f"imports of {side.name}", "imports", [str(side.result)], conditions)


def jobs(conditions: Conditions) -> Case:
    """Two trainings, one after the other with all cores, or at once with half of them each."""
    training_images("mnist")
    config = train_config(["experiment=mnist", "max_samples=50000", "callbacks=none"], conditions)
    return Case(
        "two trainings of 50,000 samples of experiment=mnist",
        "s",
        [
            SeveralTrainings(f"jobs={at_once}", config, count=2, at_once=at_once, conditions=conditions)
            for at_once in (1, 2)
        ],
        [ratio("jobs=1", "jobs=2", name="how many times faster two at once are")],
        most_repeats=2,
    )


def shared_jobs(conditions: Conditions) -> Case:
    """Four trainings on one GPU, with the starts of their processes."""
    training_images("mnist")
    config = train_config(["experiment=mnist", "trainer.max_epochs=100", "callbacks=none"], conditions)
    ways = {"one after the other": 1, "at once": 4}
    return Case(
        "four trainings of 100 epochs of experiment=mnist",
        "s",
        [
            SeveralTrainings(name, config, count=4, at_once=at_once, conditions=conditions)
            for name, at_once in ways.items()
        ],
        [ratio("one after the other", "at once", name="how many times faster four at once are")],
        most_repeats=2,
    )


def train_arguments(conditions: Conditions) -> list[str]:
    """Of `vae-lab train`: the everyday run, its run directory in a folder that is thrown away."""
    place = ["trainer=gpu"] if conditions.device == "cuda" else []
    return ["experiment=mnist", *place, f"threads={conditions.threads}", f"output_root={conditions.folder}"]
