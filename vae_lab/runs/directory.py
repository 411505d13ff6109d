"""The run directory: everything about one training, and the contract between the commands.

config.yaml is frozen when the run is planned; run.json tells what happened to it; metrics.csv is its curve,
metrics.json its ledger in nats; checkpoints/, images/, tensorboard/ and log.txt are what they say. No weights are read
here, so that what only lists runs need not wait for PyTorch.
"""

import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from vae_lab.atomic import folder_is_on_disk, write_json, write_text
from vae_lab.errors import ConfigError, RunError, is_about_storage, no_room
from vae_lab.runs import small_files
from vae_lab.runs.formats import FORMAT
from vae_lab.runs.identity import FIXED, config_hash, fixed_settings, whole
from vae_lab.runs.lock import Held, Lock
from vae_lab.runs.place import placed
from vae_lab.wiring.arguments import named_paths, override, pasted

MARKS = {"config.yaml", "run.json", "metrics.json", "metrics.csv", "checkpoints"}
"""A folder that holds one of these is a run directory, or what is left of one."""
NEEDED = {"config.yaml", "run.json"}
"""What no run directory is without."""
KEPT = {"metrics.csv", "log.txt", "tensorboard", "checkpoints/last.ckpt", "checkpoints/best.ckpt"}
"""What a training does not take away once it is there."""
FOLDERS = {"checkpoints", "images", "tensorboard"}
"""Folders of a run directory, in which no other is looked for."""
LOCK_SECONDS = 0.5
"""How long a lock is waited for."""
LATEST, OUTPUTS = "latest", "outputs"
"""The word for the newest finished run, and the folder below which it is looked for."""
NAMED = 3
"""The most runs of a folder that a message names."""
WRITING_SECONDS = 10.0
"""How long it is waited for by what has a result in its hands: others of its kind hold it for a moment."""


class Inside:
    """A file or folder of every run directory: its path, which is refused where it is a link that leads out."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __get__(self, run: "RunDir", kind: type["RunDir"]) -> Path:
        return run.inside(*self.names)


class RunDir:
    """One run directory: reading and writing its files. Creating the object touches nothing."""

    def __init__(self, path: str | Path, data_root: str | None = None) -> None:
        self.path = Path(path).expanduser()
        self.data_root = data_root
        """Where the data of the run lie now, as a command line says."""
        self._lock: Lock | None = None
        self._seen: set[str] = set()

    def inside(self, *names: str) -> Path:
        """A file or folder of this directory.

        Raises:
            RunError: it is a link that leads out of the directory.
        """
        return Path(small_files.inside(self.path, *names))

    checkpoints = Inside("checkpoints")
    """The folder of the weights."""
    last = Inside("checkpoints", "last.ckpt")
    """The checkpoint to continue from."""
    best = Inside("checkpoints", "best.ckpt")
    """The checkpoint of the largest validation bound; there is none without a validation split."""
    best_before = Inside("checkpoints", ".best-before.ckpt")
    """The best checkpoint but one, for a run whose end turns out to be none."""
    tensorboard = Inside("tensorboard")
    """The folder of TensorBoard's events."""
    images = Inside("images")
    """The folder of the pictures."""
    curve_file = Inside("metrics.csv")
    """The file with a row for each evaluation."""
    log = Inside("log.txt")
    """What was logged in words."""
    output = Inside("output.txt")
    """What its process printed."""

    def last_output(self) -> str:
        """The last line of output.txt that is not empty."""
        lines = self.output.read_text(encoding="utf-8", errors="replace").split("\n") if self.output.is_file() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def refuse_ways_out(self) -> None:
        """Refuses a directory with a link to what lies outside of it, at any depth.

        Raises:
            RunError: naming it.
        """
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                if os.path.islink(os.path.join(folder, name)):
                    self.inside(*Path(folder, name).relative_to(self.path).parts)

    @classmethod
    def existing(cls, path: str | Path | None) -> "RunDir":
        """The run directory at `path`.

        Raises:
            RunError: there is none.
        """
        if not path:
            raise RunError(f"run must name a run directory, got {'null' if path is None else 'an empty text'}")
        run = cls(str(path))
        if not run.exists():
            raise RunError(f"{path} is no run directory: {_what_it_holds([run.path])}")
        run.refuse_ways_out()
        return run

    def exists(self) -> bool:
        """Whether a run was planned here."""
        return all((self.path / name).is_file() for name in NEEDED)

    def make(self) -> None:
        """Makes the folder, if there is none.

        Raises:
            RunError: the system refuses it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"{self.path} cannot be made ({error.strerror})"
            raise RunError(f"{reason}: name another output_root or run_dir") from error

    def require_free(self) -> None:
        """Refuses a folder that holds other things, such as the folder of several runs; for a run not yet planned.

        Raises:
            RunError: something lies there that a kill during the planning does not leave behind.
        """
        names = os.listdir(self.path) if self.path.is_dir() else []  # a folder that cannot be read is an error
        if foreign := sorted(name for name in names if name != "config.yaml" and not name.startswith(".")):
            raise RunError(
                f"run_dir={self.path} must be a run directory, or a new or empty folder: it is none, and holds "
                f"{', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}"
            )

    def packages(self, name: str) -> list[str]:
        """What `allow` must name for a command to read this run."""
        from vae_lab.wiring.build import foreign_packages

        try:
            config = self.read_config()
            return foreign_packages({key: config[key] for key in config if name == "train" or key != "logger"})
        except RunError:  # the command says itself what is wrong
            return []

    def command(self, name: str, *further: str) -> str:
        """The command line of a command about this run, to be pasted, with the packages that its config needs."""
        packages = self.packages(name)
        allow = [f"allow=[{','.join(packages)}]"] if packages else []
        return pasted(name, override("run_dir" if name == "train" else "run", self.path), *allow, *further)

    def read_config(self) -> dict[str, Any]:
        """The frozen config: plain values, nothing to resolve.

        Raises:
            RunError: it cannot be read.
        """
        return small_files.read_config(self.path)

    def config_text(self) -> str:
        """config.yaml as it stands, whatever it says."""
        return small_files.read_text(self.path, "config.yaml")

    def write_config(self, config: Mapping[str, Any], **record: Any) -> None:
        """Freezes a config in the present format; run.json gets its number, the config's hash and further entries."""
        write_text(self.path / "config.yaml", small_files.settings_text(config), new_folder=False)
        about = {"config_hash": config_hash(config), FIXED: fixed_settings(config)}
        self.update_record(format=FORMAT, **about, **record)

    def read_record(self) -> dict[str, Any]:
        """run.json: format, status, command, versions, counts, the error if it failed.

        Raises:
            RunError: it cannot be read.
        """
        record = small_files.read_record(self.path)
        small_files.check_record(self.path, record)
        return record

    def update_record(self, **changes: Any) -> None:
        """Changes entries of run.json."""
        write_json(self.path / "run.json", (self.read_record() if self.exists() else {}) | changes, new_folder=False)

    def read_status(self) -> str:
        """The status of run.json: planned, running, interrupted, finished or failed."""
        return self.believed(self.read_record()["status"])

    def believed(self, status: str) -> str:
        """`running` is believed only while a process holds the directory's lock; otherwise it was killed."""
        return "interrupted" if status == "running" and not self.is_locked() else status

    @property
    def snapshots(self) -> dict[int, Path]:
        """The weights that were kept on the way (`checkpoint.at`), by training samples, in their order."""
        files = self.inside("checkpoints", "at").glob("*.ckpt")
        counts = sorted(int(file.stem) for file in files if file.stem.isdecimal())
        return {count: self.snapshot_path(count) for count in counts}

    def snapshot_path(self, count: int) -> Path:
        """Where the weights after so many training samples are kept."""
        return self.inside("checkpoints", "at", f"{count}.ckpt")

    def ledger_path(self, checkpoint: str) -> Path:
        """metrics.json for the checkpoint that is read by default, metrics-<checkpoint>.json for the other.

        That of a snapshot lies beside it.
        """
        if checkpoint.isdigit():
            return self.inside("checkpoints", "at", f"{checkpoint}.json")
        return self.inside("metrics.json" if checkpoint == self.default_checkpoint else f"metrics-{checkpoint}.json")

    def ledger(self, checkpoint: str, samples: int | None = None) -> dict[str, Any]:
        """The measured values of a checkpoint; {} where nothing was measured yet.

        Args:
            checkpoint: `best`, `last` or the count of a snapshot.
            samples: presented by its weights: what was measured with others is not theirs. None: whatever there is.
        """
        path = self.ledger_path(checkpoint)
        ledger = small_files.read_ledger(path.parent, path.name)
        small_files.check_ledger(path.parent, path.name, ledger)
        return ledger if samples in (None, ledger.get("samples_evaluated")) else {}

    def drop_ledger(self, checkpoint: str) -> None:
        """Removes what was measured with weights that are about to be replaced."""
        self.ledger_path(checkpoint).unlink(missing_ok=True)

    def update_ledger(self, checkpoint: str, entries: Mapping[str, Any], replaced: Collection[str] = ()) -> Path:
        """Adds entries to the ledger of a checkpoint; those of `replaced`, and of the same names, go.

        Values of other weights, measured before the run went on, are dropped.
        """
        path = self.ledger_path(checkpoint)
        known = self.ledger(checkpoint, entries["samples_evaluated"])
        write_json(
            path, {key: value for key, value in known.items() if key not in replaced} | dict(entries), new_folder=False
        )
        return path

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return self.last.is_file()

    @property
    def default_checkpoint(self) -> str:
        """`best` where a validation set chose one, else `last`."""
        return "best" if self.best.is_file() else "last"

    def checkpoint_path(self, checkpoint: str | int | None) -> Path:
        """The file of `best`, `last` or the snapshot at a count of training samples; None: the default.

        Raises:
            ConfigError: it is no such name, or there is no snapshot at this count.
            RunError: the run has none yet.
        """
        name = self.default_checkpoint if checkpoint in (None, "") else str(whole(checkpoint))
        if name.isdigit():
            if int(name) not in self.snapshots:
                kept = ", ".join(map(str, self.snapshots)) or "none: checkpoint.at says at which counts they are kept"
                raise ConfigError(
                    f"checkpoint must be the count of a snapshot of {self.path}, got {name}; it has {kept}"
                )
            return self.snapshots[int(name)]
        if name not in ("best", "last"):
            raise ConfigError(
                f"checkpoint must be best, last, the count of a snapshot or null (best if there is one), got {name!r}"
            )
        path = self.inside("checkpoints", f"{name}.ckpt")
        if not path.is_file():
            raise RunError(f"{self.path} has no checkpoint {name}.ckpt; its status is {self.read_status()}")
        return path

    def is_locked(self) -> bool:
        """Whether a process writes here now."""
        return Lock(self.path / ".lock").is_held()

    def refuse_locked(self) -> None:
        """Refuses to read what a training may be about to replace; others write whole files in a moment.

        Raises:
            RunError: the run is being trained.
        """
        lock = Lock(self.path / ".lock")
        if self.read_record()["status"] == "running" and lock.is_held():
            raise self._in_use(lock.words(lock.holder()))

    def require_writable(self) -> None:
        """Refuses a directory that a result could not be written to, before the work for it.

        Raises:
            RunError: a process is at work on it, or it may not be written to.
        """
        with self.locked(self.patience()):
            pass

    def patience(self) -> float:
        """How long the lock is waited for by what has a result for this directory: not for the end of a training."""
        return LOCK_SECONDS if self.read_record()["status"] == "running" else WRITING_SECONDS

    def _in_use(self, writer: object) -> RunError:
        return RunError(f"{self.path} is being written by another process: wait for it or stop it ({writer})")

    @contextmanager
    def locked(self, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """The only writer of this directory while the block runs; the system frees it when the process dies.

        Raises:
            RunError: another process holds it, or the folder cannot be made or written to, or a link in it leads out.
        """
        self.make()
        if self.exists():
            self.refuse_ways_out()
        lock = Lock(self.inside(".lock"))
        try:  # for longer than one that only asks `is_locked` holds it
            lock.acquire(seconds)
        except Held as error:
            raise self._in_use(error) from error
        except OSError as error:
            if is_about_storage(error):
                raise no_room(self.path, error) from error
            raise RunError(
                f"{self.path} cannot be written to ({error.strerror}): make it writable, or copy it and name the copy"
            ) from error
        self._lock, self._seen = lock, set()
        try:
            yield
        finally:
            self._lock = None
            lock.release()

    def limits(self) -> list[str]:
        """What this file system cannot promise to the one who holds the lock, in sentences."""
        limits = []
        if self._lock is not None and not self._lock.is_of_the_system:
            limits.append(
                f"{self.path} lies on a file system without locks: a file with the name of this process keeps others "
                "out, but for two that start in the same instant; should another machine die while it writes there, "
                f"delete {self._lock.name}"
            )
        if not folder_is_on_disk(self.path):
            limits.append(
                f"{self.path} lies on a file system that cannot wait for its folders: after a power failure the newest "
                "files may be those of before"
            )
        return limits

    def require_whole(self) -> None:
        """Refuses to write on where the directory of the one who holds the lock, or a part of it, has gone.

        Raises:
            RunError: saying what is missing, or that another process has taken the lock.
        """
        if self._lock is None:
            return
        advice = "nothing more is written; put it back, or go on from what is left:"
        if not self.path.is_dir():
            elsewhere = pasted("train", "run_dir=DIR")
            raise RunError(f"{self.path} was moved, renamed or deleted while it was written: {advice} {elsewhere}")
        if not self._lock.is_mine() and not self._lock.sign():
            again = self.command("train")
            raise RunError(f"{self.path} was taken by another process while it was written: {advice} {again}")
        present = {name for name in (*KEPT, *NEEDED) if (self.path / name).exists()}
        if gone := sorted((self._seen | NEEDED) - present):
            again = self.command("train")
            raise RunError(f"{self.path}: {', '.join(gone)} vanished while the run was written: {advice} {again}")
        self._seen = present


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Who writes a file, or into a folder, holds the lock of the run directory that it lies in, if it lies in one.

    Raises:
        RunError: another process is at work on the run, or it may not be written to.
    """
    folder = (path if path.is_dir() else path.parent).resolve()
    run = next(filter(RunDir.exists, map(RunDir, (folder, *folder.parents))), None)
    with ExitStack() as stack:
        if run is not None:
            seconds = run.patience()
            try:
                stack.enter_context(run.locked(seconds))
            except RunError as error:
                raise RunError(f"{error}; or name another place by out=") from error
        yield


def plan_run(path: Path, config: Mapping[str, Any], **record: Any) -> RunDir:
    """Creates the run directory with its frozen config and status `planned`.

    Raises:
        RunError: the folder cannot be made.
    """
    run = RunDir(path)
    run.make()
    run.write_config(config, status="planned", seed=config["seed"], **placed(config, {}), **record)
    return run


def named_runs(run: str | int | Sequence[str]) -> list[RunDir]:
    """The run directories that a key `run` names, each once; of a pattern's folders those that are runs.

    Raises:
        RunError: what is named is no run directory, or a pattern finds none.
    """
    found = named_folders([str(run)] if isinstance(run, str | int) else run)
    runs = [
        RunDir.existing(path) for path, is_of_pattern in found.items() if not is_of_pattern or RunDir(path).exists()
    ]
    if not runs:
        names = ", ".join(map(str, found))
        raise RunError(f"run must name run directories: among {names} is none; {_what_it_holds(list(found))}")
    return runs


def named_folders(values: Sequence[str]) -> dict[Path, bool]:
    """The folders that the values of a key `run` name, as `named_paths` has them; `latest` is the newest finished run.

    Raises:
        ConfigError: a pattern matches nothing.
        RunError: no run is finished.
    """
    return named_paths(
        "run", [_latest() if value == LATEST and not os.path.lexists(value) else value for value in values]
    )


def _latest() -> str:
    for run in runs_below(Path(OUTPUTS)):
        with suppress(RunError):
            if run.read_status() == "finished":
                return str(run.path)
    raise RunError(
        f"run=latest must be a run below {OUTPUTS} that is finished, and there is none: name a run directory"
    )


def runs_below(folder: Path) -> list[RunDir]:
    """The run directories below a folder, the last written first."""
    found = []
    for place, folders, files in os.walk(folder):
        if set(files) >= NEEDED:
            found.append(RunDir(place))
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".") and name not in FOLDERS]
    return sorted(found, key=lambda run: (run.path / "run.json").stat().st_mtime_ns, reverse=True)


def _what_it_holds(folders: Sequence[Path]) -> str:
    """The runs in folders, or their folders, of which somebody named one that is no run."""
    files = [file for folder in folders for depth in ("*", "*/*") for file in folder.glob(f"{depth}/run.json")]
    runs = [run for run in map(RunDir, sorted(file.parent for file in files)) if run.exists()]
    if not runs:
        return "it has no config.yaml and run.json"
    names = [str(run.path) for run in runs]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    pattern = override("run", runs[0].path.parent / "*")
    return f"it holds {', '.join(names[:NAMED])}{more}; name one, or several by a pattern such as {pattern}"


def require_root(output_root: str) -> Path:
    """The folder below which runs are made.

    Raises:
        ConfigError: the text is empty.
    """
    if not output_root:
        raise ConfigError("output_root must name a folder, got an empty text: leave it out, or write . for here")
    return Path(output_root).expanduser()


def new_run_path(root: Path, name: str) -> Path:
    """<root>/<name>/<date_time>-<4 hex>: never one that exists."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return root / safe_name(name) / f"{stamp}-{secrets.token_hex(2)}"


def safe_name(name: str) -> str:
    """The name in letters, digits, '.', '-' and '_', so that a path can be pasted into a command line."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"(?<=\de)\+", "", name)).strip("-.")
