"""Files of a run that are damaged: every command refuses them, or comes to the right result."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from campaigns.forks import Ended
from campaigns.trials import MISTAKE, RUNS, Trial, content_of, copy_of, expect, result_of, run
from vae_lab.runs.directory import RunDir

EVALUATE = ["num_samples=2", "estimator.num_samples=5", "threads=1", "save=false"]
COMMANDS = {
    "evaluate": ["evaluate", "run={run}", *EVALUATE],
    "evaluate last": ["evaluate", "run={run}", "checkpoint=last", *EVALUATE],
    "continue": ["train", "run_dir={run}", "trainer.max_epochs=4"],
    "plot": ["plot", "run={run}"],
    "runs": ["runs", "root={run}/.."],
    "report": ["report", "run={run}"],
    "compare": ["compare", "run={run},{other}", "out={run}/../page.html"],
}
EXACT = ("evaluate", "evaluate last", "continue")
"""Commands whose result is compared with that of the undamaged run; the others only end in good order."""


def flip_a_bit(data: bytes, random: Random) -> bytes:
    """One bit of the file."""
    place = random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << random.randrange(8))]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "one bit": flip_a_bit,
    "cut": lambda data, random: data[: random.randrange(len(data))],
    "empty": lambda data, random: b"",
    "zeros": lambda data, random: bytes(len(data)),
    "a block of zeros": lambda data, random: data[: len(data) // 2] + bytes(512) + data[len(data) // 2 + 512 :],
    "other content": lambda data, random: random.randbytes(200),
    "no entries": lambda data, random: random.choice([b"[]", b"null", b"3", b'"text"', b"{}"]),
    "a key is absent": lambda data, random: without_a_line(data, random),
}
OF_CHECKPOINTS = ["one bit", "cut", "empty", "zeros", "a block of zeros", "other content", "of another run"]
FILES = {
    "config.yaml": list(DAMAGES),
    "run.json": [name for name in DAMAGES if name != "one bit"],
    "metrics.json": [name for name in DAMAGES if name != "one bit"],
    "metrics.csv": ["zeros", "other content", "no entries", "a block of zeros"],
    "checkpoints/best.ckpt": OF_CHECKPOINTS,
    "checkpoints/last.ckpt": OF_CHECKPOINTS,
}
"""What is done to which file. A digit of a ledger or a curve that becomes another digit cannot be told by anyone."""


def without_a_line(data: bytes, random: Random) -> bytes:
    """A text file without one of its lines, or a JSON without one of its entries."""
    try:
        content = json.loads(data)
        content.pop(random.choice(list(content)))
        return json.dumps(content).encode()
    except ValueError:
        lines = data.splitlines(keepends=True)
        lines.pop(random.randrange(len(lines)))
        return b"".join(lines)


_undamaged: dict[tuple[str, str], object] = {}


def outcome_of(trial: Trial, run_dir: RunDir, command: str) -> tuple[Ended, object]:
    """How a command ended, and what it came to, by which it is compared."""
    places = {"run": run_dir.path, "other": trial.runs / "plain"}
    ended = run(trial, *(argument.format(**places) for argument in COMMANDS[command]))
    if ended.code == MISTAKE or command not in EXACT:
        return ended, None
    if command == "continue":
        return ended, {key: value for key, value in result_of(run_dir).items() if key != "ledger"}
    return ended, re.findall(r"-?\d+\.\d+", ended.output)


def damage(trial: Trial) -> str:
    """One damaged file, met by one command."""
    name, command = trial.random.choice(list(RUNS)), trial.random.choice(list(COMMANDS))
    if (name, command) not in _undamaged:
        whole = copy_of(trial, name, "whole/run")
        ended, _undamaged[name, command] = outcome_of(trial, whole, command)
        expect(ended.code == 0, f"{command} of an undamaged run must work", ended)
        shutil.rmtree(trial.folder / "whole")
    run_dir = copy_of(trial, name)
    file = trial.random.choice(list(FILES))
    kind = trial.random.choice(FILES[file])
    damaged = run_dir.path / file
    data = damaged.read_bytes()
    if kind == "of another run":
        data = (trial.runs / trial.random.choice([other for other in RUNS if other != name]) / file).read_bytes()
    else:
        data = DAMAGES[kind](data, trial.random)
    damaged.write_bytes(data)
    before = content_of(run_dir.path)
    ended, found = outcome_of(trial, run_dir, command)
    what = f"{name}, {file}, {kind}, {command}"
    if ended.code == MISTAKE:
        changed = differing(before, run_dir.path)
        expect(not changed, f"{what}: a refusal changes nothing, and it changed {changed}", ended)
        return f"{what}: refused"
    if found != _undamaged[name, command]:
        expect(f"{file} lacks" in ended.output, f"{what}: came to another result without a word", ended)
        return f"{what}: said, and carried out"
    return f"{what}: not noticed, and the result is right"


def differing(before: dict[str, str], folder: Path) -> list[str]:
    """The paths whose content is no longer as before."""
    after = content_of(folder)
    return [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
