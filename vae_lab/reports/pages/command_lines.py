"""Command lines that can be pasted: what makes a run or a sweep again, and what goes on with it."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_lab.reports.overview import Overview
from vae_lab.reports.values import as_text, is_number
from vae_lab.runs.directory import RunDir
from vae_lab.runs.identity import BUDGET, Kind, kind_of, may_change
from vae_lab.runs.small_files import DAMAGE, plain_mapping, read_text
from vae_lab.wiring.arguments import override, pasted
from vae_lab.wiring.dotted import key_of


def resume(run: Overview) -> str:
    """The command that goes on with a run; it trains a finished one twice as long."""
    samples, epochs = (run.settings.get(key) for key in BUDGET)
    larger = []
    if run.is_finished and is_number(samples):
        larger = [f"{BUDGET[0]}={as_text(2 * samples)}", *([f"{BUDGET[1]}=null"] if epochs is not None else [])]
    elif run.is_finished and is_number(epochs):
        larger = [f"{BUDGET[1]}={as_text(2 * epochs)}"]
    return RunDir(run.path).command("train", *larger)


def new_run(run: Overview) -> str | None:
    """The command that trains a new run with the same settings; None where the directory does not say."""
    given = run.record.get("overrides")
    if not isinstance(given, list):
        return None
    typed = [text for text in map(str, given) if kind_of(text) is not Kind.COMMAND]
    # a continuation changes some keys; the jobs of a sweep are given their threads
    latest = [*BUDGET, "threads", *filter(may_change, map(key_of, typed))]
    values = {key: run.settings[key] for key in latest if key in run.settings}
    values = {key: value for key, value in values.items() if override(key, value) not in typed}
    kept = [text for text in typed if key_of(text) not in values]
    now = [override(key, value) for key, value in values.items() if value is not None or key != "threads"]
    return pasted("train", *kept, *now)


def recorded(run: Overview) -> str | None:
    """The command line of run.json; None where it has none."""
    command = run.record.get("command")
    if not isinstance(command, list) or not command:
        return None
    program, *arguments = map(str, command)
    is_ours = Path(program).name == "vae-lab" or Path(program).parts[-2:] == ("vae_lab", "__main__.py")
    return shlex.join(["vae-lab" if is_ours else program, *arguments])


def sweep_again(folder: Path) -> str | None:
    """The command line that Hydra kept of the sweep's last invocation; None where it kept none."""
    try:
        kept: Any = plain_mapping(read_text(folder, "multirun.yaml"))
        overrides: Mapping[str, Any] = kept["hydra"]["overrides"]
        typed = [str(text) for name in ("hydra", "task") for text in overrides[name]]
    except (KeyError, *DAMAGE):
        return None
    return pasted("train", "-m", *(text for text in typed if text not in ("hydra.mode=MULTIRUN", "hydra.run.dir=.")))
