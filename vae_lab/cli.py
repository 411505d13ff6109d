"""`vae-lab COMMAND overrides...`: finds the command, lets Hydra compose its config, reports what came of it.

Only dispatch happens here; PyTorch is imported when a command runs. Plain commands have no config of Hydra's.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from vae_lab import __version__
from vae_lab.commands.help import Command, command_help, overview, plain_help
from vae_lab.commands.typed import RUN, understood
from vae_lab.errors import INTERRUPTED, MISTAKE, ConfigError, Interrupted, missing, nearest
from vae_lab.wiring.arguments import (
    in_a_shell,
    paths_of,
    quoted,
    read_arguments,
    with_brackets,
    with_one_list,
    with_texts,
)
from vae_lab.wiring.folders import CommandLine, choices, package_configs, require_text
from vae_lab.wiring.keys import OPEN, CommandKeys
from vae_lab.wiring.terminal import put, say

COMMANDS = {
    "train": Command(
        "train a model; keep everything about it in a run directory", "data=mnist model.latent_dim=20", "training with"
    ),
    "evaluate": Command(
        "measure a trained model in nats per datapoint, with standard errors", "run=RUN_DIR", "measuring"
    ),
    "audit": Command("check that a model's densities are densities, of one datapoint each", "run=RUN_DIR", "auditing"),
    "classify": Command(
        "classify by the latent means of few labelled images, beside pixels and PCA",
        "run=RUN_DIR labels=[100,1000]",
        "classifying",
    ),
    "plot": Command("draw the bound curve, samples, reconstructions, the latent space", "run=A,B", "drawing"),
    "sample": Command("draw images from a trained model", "run=RUN_DIR num=1000 out=samples.npz", "sampling from"),
    "encode": Command("write q(z|x) of images to a table", "run=RUN_DIR out=z.csv", "encoding by"),
    "score": Command(
        "log p(x) and bound of every image, the least likely as a picture",
        "run=RUN_DIR out=scores.csv top=20",
        "scoring by",
    ),
    "explore": Command("walk through the latent space, in one HTML file without a server", "run=RUN_DIR", "building"),
    "inpaint": Command("draw what is hidden of images, given the rest", "run=RUN_DIR mask=right_half", "inpainting by"),
    "export": Command(
        "a trained model as ONNX, safetensors or PyTorch's own file",
        "run=RUN_DIR format=onnx out=exported",
        "exporting",
    ),
    "figure": Command("draw a figure of the paper from run directories", "figure=figure2 scale=quick", "drawing"),
    "runs": Command(
        "list runs, or means over seeds", "where=status=finished sort=test/bound", plain="vae_lab.commands.runs"
    ),
    "compare": Command(
        "runs beside each other: settings, curves, pictures, on one page",
        "run=A,B",
        "comparing",
        "vae_lab.commands.compare",
    ),
    "report": Command(
        "one page about a run or a sweep, light enough to mail", "run=RUN_DIR", "reporting", "vae_lab.commands.report"
    ),
    "reproduce": Command(
        "make the paper's figures: runs, pictures, verification, one page",
        "scale=quick",
        "reproducing",
        loads_pytorch=False,
    ),
    "verify": Command(
        "hold a reproduction against the published values, or runs against their presets", "scale=quick", "judging"
    ),
}
"""A command is the function of that name in the module of that name, or in the one that its entry names.

It leads from the command's settings, the dataclass there whose name begins with its own, to the path, or paths, that it
wrote, or None; `train`, which has no such dataclass, is given the whole config.
"""

HYDRAS_PLACES = {
    "hydra.run.dir": ".",
    "hydra.sweep.dir": ".",
    "hydra.sweep.subdir": ".",
    "hydra.output_subdir": "null",
    "hydra.job.chdir": "false",
}
"""Hydra's own words for where things go, with the value that changes nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns 0, 1 (failed), 2 (a mistake of the user) or 130 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"] and arguments[1:2] and arguments[1] in COMMANDS:
        arguments = [arguments[1], "--help", *arguments[2:]]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        put(overview(COMMANDS))
        return 0
    if arguments[0] in ("--version", "version"):
        put(f"vae-lab {__version__}")
        return 0
    name, *rest = arguments
    if name in ("--completion", "--complete"):
        return complete(name, rest)
    if name not in COMMANDS:
        say("vae-lab", f"there is no command {name!r}: {nearest(name, COMMANDS)}")
        return MISTAKE
    try:
        return run_plain_command(name, COMMANDS[name], rest) if COMMANDS[name].plain else run_command(name, rest)
    except ConfigError as error:
        say(f"vae-lab {name}", error)
        return MISTAKE
    except KeyboardInterrupt as interrupt:
        say(f"vae-lab {name}", str(interrupt) or "interrupted")
        return INTERRUPTED


def run_plain_command(name: str, command: Command, arguments: Sequence[str]) -> int:
    """Runs a plain command, and prints the paths that it wrote, if any; returns the exit code."""
    module = import_module(command.plain)
    kind = getattr(module, f"{name.title()}Settings")
    if {"-h", "--help"} & set(arguments):
        put(plain_help(name, command, kind))
        return 0
    try:
        settings = read_arguments(name, arguments, kind)
        if command.doing:
            announce(name, arguments)
        artefacts = getattr(module, name)(settings)
        if artefacts is not None:
            put("\n".join(map(str, artefacts if isinstance(artefacts, list) else [artefacts])))
        return 0
    except Exception as error:  # the boundary of a command: reported
        from vae_lab.commands.task import FULL_ERROR, Task

        line = CommandLine(name, name, [], list(arguments))
        return Task(line, Path(), os.environ.get(FULL_ERROR)).report_error(error)


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Runs one command, once or (with -m) for many configs; returns the exit code."""
    flags, further = command_flags().parse_known_intermixed_args(arguments)
    folders = [package_configs()]
    if flags.config_dir is not None:
        folders.insert(0, Path(flags.config_dir))
        if not folders[0].is_dir():
            raise ConfigError(f"--config-dir must be a folder, got {flags.config_dir}: no such folder")
        if folders[0].resolve() == Path(folders[0].resolve().anchor):
            raise ConfigError(f"--config-dir must be a folder of configs, got {flags.config_dir}: name one of your own")
        require_text(folders[0])
    config_name = flags.config_name or name
    if config_name not in (configs := choices(folders, ".")):
        raise ConfigError(f"there is no config {config_name!r}: {nearest(config_name, configs)}")
    keys = CommandKeys(folders, config_name, flags.overrides)
    if flags.help or flags.overrides[:1] == ["help"]:
        put(command_help(name, COMMANDS[name], keys))
        return 0
    unknown = [word for word in further if word.startswith("-")]
    words = [*flags.overrides, *(word for word in further if word not in unknown)]  # behind such a flag all are further
    typed = CommandLine(name, config_name, folders, words)
    said = with_texts(understood(typed, keys, arguments, unknown))
    overrides = said
    if name == "train":
        from vae_lab.runs.place import with_any_place

        overrides = with_any_place(said)
    takes_runs = RUN in keys.keys
    refuse_hydras_places(name, overrides, takes_runs=takes_runs)
    line = CommandLine(name, config_name, folders, overrides)
    asks = any((flags.cfg, flags.info, flags.hydra_help, flags.version, flags.shell_completion))
    if not asks and "VAE_LAB_RUN_DIR" not in os.environ:  # in which a further process of a training is
        given = {text.partition("=")[0].lstrip("+") for text in overrides}
        if absent := [key for key, about in keys.of_group[""].items() if about.value == OPEN and key not in given]:
            raise ConfigError(missing(absent))
        if takes_runs and not flags.multirun and (paths := paths_of(overrides, RUN)):
            from vae_lab.runs.directory import named_runs

            named_runs(paths)  # refused before PyTorch is loaded
        is_sweep = name == "train" and bool(flags.multirun or keys.chosen.get("sweep"))
        announce(name, said, is_sweep=is_sweep)
    import hydra

    from vae_lab.commands.task import FULL_ERROR, Task, environment, exit_code

    argv = tuple(sys.argv)
    with tempfile.TemporaryDirectory(prefix="vae-lab-") as reports:
        endings = Path(reports) / "endings"
        endings.mkdir()
        task = Task(line, endings, os.environ.get(FULL_ERROR), argv)
        try:
            # Hydra is to raise, instead of printing and leaving
            with environment(FULL_ERROR, "1"):
                if name != "train" and not flags.multirun:
                    overrides = with_brackets(with_one_list(overrides, RUN), partial(takes_list, name))
                    line = line._replace(overrides=overrides)
                # what lies in folders of one's own, hydra.main makes known to all that compose further configs
                is_plain = not any((flags.resolve, flags.config_path, flags.package, folders[1:]))
                is_hydras = asks or flags.run or (name != "train" and (flags.multirun or not is_plain))
                given = overrides if name == "train" else arguments
                if is_hydras or not composed_once(line, task, given, is_sweep=flags.multirun, is_plain=is_plain):
                    # in the order that Hydra's own parser reads: overrides before flags
                    sys.argv[1:] = [
                        *overrides,
                        *([f"hydra.sweep.dir={quoted(reports)}"] if flags.multirun else []),  # for Hydra's own notes
                        *(text for text in arguments if text not in flags.overrides),
                    ]
                    answer = StringIO()
                    with hydras_mistakes(arguments), redirect_stdout(answer if asks else sys.stdout):
                        hydra.main(config_path=str(folders[-1]), config_name=name, version_base="1.3")(task)()
                    put(answer.getvalue(), end="")
        except Interrupted as interrupt:
            raise KeyboardInterrupt(str(interrupt)) from interrupt
        except Exception as error:  # the boundary of a command: reported
            return task.report_error(error)
        finally:
            sys.argv[:] = argv
        return exit_code(line, endings)


def takes_list(command: str, key: str) -> bool:
    """Whether a key of a command that has Hydra takes several values: its settings say so."""
    from vae_lab.wiring.build import list_keys

    module = import_module(f"vae_lab.commands.{command}")
    return key in list_keys(getattr(module, f"{command.title()}Settings"))


def announce(name: str, overrides: Sequence[str], *, is_sweep: bool = False) -> None:
    """Says on stderr what will be done, before the seconds in which the libraries are imported."""
    doing, loads_pytorch = COMMANDS[name].doing, COMMANDS[name].loads_pytorch and not is_sweep
    what = " ".join([doing, *overrides]) if overrides else f"{doing.removesuffix(' with')} with the defaults"
    say(f"vae-lab {name}", f"loading PyTorch, then {what}" if loads_pytorch and "torch" not in sys.modules else what)


def complete(flag: str, arguments: Sequence[str]) -> int:
    """Prints the script that lets a shell complete command lines, or what may follow on one; returns the exit code."""
    from vae_lab.commands.completion import SCRIPTS, candidates

    if flag == "--complete":
        put("\n".join(candidates(arguments[0] if arguments else "", COMMANDS)))
        return 0
    shell = arguments[0] if arguments else ""
    if shell not in SCRIPTS:
        say("vae-lab", f"--completion must name a shell, got {shell!r}: {nearest(shell, SCRIPTS)}")
        return MISTAKE
    put(SCRIPTS[shell], end="")
    return 0


def refuse_hydras_places(name: str, overrides: Sequence[str], *, takes_runs: bool) -> None:
    """Refuses Hydra's own words for where things go, and what is no list of runs."""
    for text in overrides:
        key, _, value = text.partition("=")
        is_relaunched = "VAE_LAB_RUN_DIR" in os.environ  # a further process of a training, by Lightning
        kept = HYDRAS_PLACES.get(key.lstrip("+"))
        if kept is not None and value.strip("\"'").lower() != kept and not is_relaunched:
            places = "output_root=FOLDER for all runs, or run_dir=FOLDER for this one" if name == "train" else "nothing"
            raise ConfigError(f"{key} moves nothing of vae-lab's, got {value or 'an empty text'}: write {places}")
        if takes_runs and key == RUN and value.startswith("glob("):
            pattern = in_a_shell(f"run={value[5:].rstrip(')') or '*'}")
            raise ConfigError(f"run must name run directories or a pattern, got {value}: write {pattern}, without -m")


def composed_once(
    line: CommandLine, task: Callable[[Any], None], given: Sequence[str], *, is_sweep: bool, is_plain: bool
) -> bool:
    """Runs a command, or the sweep that a config of `train` asks for; `hydra.main` composes every config twice.

    Args:
        line: the command, with all its overrides.
        task: runs it once.
        given: what the message of a mistake shows.
        is_sweep: whether it is asked for on the line.
        is_plain: whether a single run may be run here.

    Returns:
        False where only `hydra.main` does what the config asks for, or says what is wrong: nothing was run then.
    """
    from hydra import compose
    from hydra._internal.callbacks import Callbacks  # private: `run_job` asks for one
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import configure_log, run_job
    from hydra.types import HydraContext, RunMode

    from vae_lab.sweeps.points import NEEDED, one_value_each
    from vae_lab.sweeps.worker import SweepSettings
    from vae_lab.wiring.compose import started

    with started(line.folders) as searchpath:
        with hydras_mistakes(given):
            overrides = one_value_each(line.overrides)
            is_single = len(overrides) == len(line.overrides)
            if line.command != "train" and not is_single:
                return False
            cfg = compose(line.config_name, [*searchpath, *overrides], return_hydra_config=True)
        if line.command == "train":
            if absent := [key for key in NEEDED if key not in cfg]:
                raise ConfigError(missing(absent))
            SweepSettings.of(cfg)
            if is_sweep or cfg.hydra.mode == RunMode.MULTIRUN:
                from vae_lab.sweeps.sweep import run_sweep

                put(str(run_sweep(cfg, line.overrides)))
                return True
        is_usual = isinstance(cfg.hydra.verbose, bool) and not cfg.hydra.callbacks
        if not (is_plain and is_single and is_usual) or cfg.hydra.mode == RunMode.MULTIRUN:
            return False
        with hydras_mistakes(given):  # from here on as hydra.main does it
            cfg.hydra.mode = RunMode.RUN
            configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
            context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks(cfg))
            ended = run_job(task, cfg, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context)
            _ = ended.return_value  # raises what the job did
    return True


@contextmanager
def hydras_mistakes(arguments: Sequence[str]) -> Iterator[None]:
    """While Hydra reads a command line, what it stumbles over is a mistake of the user; commands report their own."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, AssertionError, AttributeError) as error:
        if str(error).startswith("Config group override must be"):  # it says neither which nor what else
            empty = ", ".join(text for text in arguments if text.lower().endswith("=null"))
            given = empty or f"a group among {' '.join(arguments)}"
            raise ConfigError(f"{given} must name a choice, or be left out") from error
        mistake = ConfigError(f"{str(error) or 'a value is not of the right kind'} (given: {' '.join(arguments)})")
        raise mistake.with_traceback(error.__traceback__) from error


def command_flags() -> argparse.ArgumentParser:
    """The flags of Hydra's own parser, which reads the line again: here they may stand between overrides."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = _refuse_flags
    parser.add_argument("overrides", nargs="*")
    for flag in ("--help -h", "--multirun -m", "--run -r", "--resolve", "--hydra-help", "--version"):
        parser.add_argument(*flag.split(), action="store_true")
    for flag in ("--cfg -c", "--package -p", "--config-name -cn", "--config-dir -cd", "--config-path -cp"):
        parser.add_argument(*flag.split(), choices=["job", "hydra", "all"] if flag == "--cfg -c" else None)
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    return parser


def _refuse_flags(message: str) -> NoReturn:
    raise ConfigError(f"{message}; overrides are written key=value, flags as in vae-lab COMMAND --help")
