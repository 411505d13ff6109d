"""Trainings that are stopped at random moments, and go on to the bits of an undisturbed one."""

import functools
import shutil
import signal
import tempfile
import time
from pathlib import Path

from campaigns import forks
from campaigns.forks import Fork
from campaigns.trials import INTERRUPTED, TINY, Trial, expect, judge, result_of, run
from vae_lab.runs.directory import RunDir

TRAININGS = {
    "aevb": ["trainer.max_epochs=12", "steps_per_execution=1"],
    "wake_sleep": ["trainer.max_epochs=8", "objective=wake_sleep", "steps_per_execution=7"],
    "importance_weighted": [
        "trainer.max_epochs=8",
        "objective=importance_weighted",
        "schedule=cosine",
        "schedule.T_max=48",
        "seed=4",
    ],
    "snapshots": [
        "trainer.max_epochs=10",
        "checkpoint.at=[300,1000,2500]",
        "optimizer=adagrad",
        "steps_per_execution=4",
    ],
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@functools.cache
def undisturbed(name: str) -> tuple[dict, float]:
    """The result of a training, and how long it takes."""
    folder = Path(tempfile.mkdtemp(prefix="vae-lab-campaign-"))
    try:
        ended = forks.run(["train", f"run_dir={folder / 'run'}", *TINY, *TRAININGS[name]], folder)
        judge(ended, [0])
        return result_of(RunDir(folder / "run")), ended.seconds
    finally:
        shutil.rmtree(folder)


def kills(trial: Trial) -> str:
    """One training, stopped up to three times."""
    name = trial.random.choice(list(TRAININGS))
    expected, seconds = undisturbed(name)
    run_dir = RunDir(trial.folder / "run")
    sent = []
    for _ in range(trial.random.choice([1, 1, 2, 3])):
        arguments = ["train", f"run_dir={run_dir.path}", *([] if run_dir.exists() else [*TINY, *TRAININGS[name]])]
        fork = Fork(arguments, trial.folder)
        moment, number = trial.random.uniform(0, 1.1 * seconds), trial.random.choice(SIGNALS)
        time.sleep(moment)
        fork.signal(number)
        ended = fork.wait()
        sent.append(f"{number.name} after {moment:.2f} s")
        if number == signal.SIGKILL:
            expect(ended.code in (0, -signal.SIGKILL), "a killed process is killed, or had finished", ended)
        elif ended.code != -number:  # before Python could listen the system's answer is the right one
            judge(ended, [0, INTERRUPTED])
    if not run_dir.exists():
        return f"{name}: {', '.join(sent)}, before the run was planned"
    ended = run(trial, "train", f"run_dir={run_dir.path}", codes=[0])
    found = result_of(run_dir)
    differing = [key for key in expected if expected[key] != found[key]]
    expect(not differing, f"{name} after {', '.join(sent)} must equal the undisturbed one; differs: {differing}", ended)
    left = [str(path) for path in run_dir.path.rglob("*.tmp")]
    expect(not left, f"nothing half-written is left, and there is {left}", ended)
    return f"{name}: {', '.join(sent)}"
