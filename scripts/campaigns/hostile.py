"""Run directories that were made to do harm: nothing of them runs, hangs, leaves its folder or hides the good runs."""

import gzip
import json
import os
import pickle
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

from campaigns.trials import MISTAKE, Trial, content_of, copy_of, expect, run
from vae_lab.runs.directory import RunDir
from vae_lab.runs.formats import FORMERLY

CANARY = "canary"
"""What hostile code would leave in the working folder."""
RUNS_CODE = f"open({CANARY!r}, 'w').close()"
OUTSIDE = "outside"
"""A folder beside the runs, which links lead to."""


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (RUNS_CODE,)


TARGETS = (
    {"_target_": "builtins.exec", "_args_": [RUNS_CODE]},
    {"_target_": "os.system", "command": f"touch {CANARY}"},
    {"_target_": "subprocess.Popen", "args": ["touch", CANARY]},
    {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "ftp://127.0.0.1:9/x"},
    {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "/tmp/elsewhere"},
    {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "dirpath": "../../elsewhere"},
    {"_target_": "torch.hub.load", "repo_or_dir": "x", "model": "y"},
    {"_target_": "torch.load", "f": "checkpoints/last.ckpt", "weights_only": False},
    {"_target_": "hydra.utils.instantiate", "config": {"_target_": "builtins.exec", "_args_": [RUNS_CODE]}},
    {"_target_": "vae_lab.data.npz.NPZ", "path": "/dev/zero"},
)


def keys_of(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of a config at which something else can be put."""
    found = [path] if path else []
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        found += keys_of(value, (*path, key))
    return found


def a_target_somewhere(run_dir: RunDir, random: Random) -> str:
    """A class of a stranger, or a trusted one out of place, anywhere in the config."""
    config = yaml.safe_load((run_dir.path / "config.yaml").read_text())
    place, target = random.choice(keys_of(config)), random.choice(TARGETS)
    node = config
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = target
    (run_dir.path / "config.yaml").write_text(yaml.safe_dump(config))
    return f"{target['_target_']} at {'.'.join(map(str, place))}"


def a_pickle_in_a_checkpoint(run_dir: RunDir, random: Random) -> str:
    """Checkpoints that run code when they are unpickled."""
    for name in ("best", "last"):
        with zipfile.ZipFile(run_dir.checkpoints / f"{name}.ckpt", "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb(), protocol=2))
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
    return "code in the checkpoints"


def marks_in_a_checkpoint(run_dir: RunDir, random: Random) -> str:
    """Checkpoints that are small and make a reader build millions of things."""
    for name in ("best", "last"):
        with zipfile.ZipFile(run_dir.checkpoints / f"{name}.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + b"(" * random.choice([1_000_000, 50_000_000]))
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
    return "millions of pickle marks"


def a_part_that_leads_out(run_dir: RunDir, random: Random) -> str:
    """A part of the run is a link to a place outside of it."""
    part = random.choice(
        ["images", "tensorboard", "checkpoints", "log.txt", "output.txt", "metrics.csv", "report.html"]
    )
    path, outside = run_dir.path / part, run_dir.path.parents[1] / OUTSIDE
    target = outside / ("folder" if "." not in part else "file.txt")
    if path.is_dir():
        path.rename(path.with_name(f"{part}-before"))
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return f"{part} is a link out of the run"


def names_of_temporary_files(run_dir: RunDir, random: Random) -> str:
    """Links under names that a careless writer would write to first."""
    outside = run_dir.path.parents[1] / OUTSIDE / "file.txt"
    for name in ("report.html", "metrics.json", "run.json", "config.yaml", "metrics.csv"):
        (run_dir.path / f".{name}.tmp").symlink_to(outside)
    return "links in the place of temporary files"


def no_regular_file(run_dir: RunDir, random: Random) -> str:
    """A pipe, a device, a folder, a socket or 8 GB of nothing in the place of a file."""
    name = random.choice(["config.yaml", "run.json", "metrics.json", "metrics.csv", "checkpoints/best.ckpt"])
    path = run_dir.path / name
    path.unlink()
    kind = random.choice(["fifo", "device", "folder", "sparse", "socket"])
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        with open(path, "wb") as file:
            file.truncate(8 * 2**30)
    return f"{name} is a {kind}"


YAMLS = {
    "a billion laughs": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "a recursive anchor": "model: &m {encoder: *m}\n",
    "a long number": f"seed: {'9' * 6000}\n",
    "a deep list": "model: " + "[" * 5000 + "]" * 5000 + "\n",
    "a tag": f"model: !!python/object/apply:exec [{RUNS_CODE!r}]\n",
    "a date": "seed: 2024-01-01\n",
    "not a number": "seed: .nan\n",
}


def a_yaml(run_dir: RunDir, random: Random) -> str:
    """YAML that swells, recurs or runs code."""
    name = random.choice(list(YAMLS))
    path = run_dir.path / "config.yaml"
    path.write_text(YAMLS[name] + random.choice(["", path.read_text()]))
    return name


TEXTS = (
    "\x1b]0;title\x07\x1b[31m",
    "\u202egpj",
    "[red]x[/red] [/] [link=http://x]",
    "=1+1",
    "<script>x</script>",
    "\ud800",
)


def texts_in_places(run_dir: RunDir, random: Random) -> str:
    """Texts that a terminal, a page or a spreadsheet would carry out."""
    text = random.choice(TEXTS)
    record = json.loads((run_dir.path / "run.json").read_text())
    record |= {random.choice(["status", "error", "command", "seed", "versions", "device"]): text}
    record |= {"error": text, "status": random.choice([record["status"], "failed", text])}
    (run_dir.path / "run.json").write_text(json.dumps(record))
    config = yaml.safe_load((run_dir.path / "config.yaml").read_text())
    config["data"][random.choice(list(config["data"]))] = text.encode("utf-8", "replace").decode()
    config["name"] = text.encode("utf-8", "replace").decode()
    (run_dir.path / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    return f"{text!r} in run.json and config.yaml"


def a_name_that_is_no_text(run_dir: RunDir, random: Random) -> str:
    """A folder whose name is no text, or a trap for terminals and shells."""
    name = random.choice([b"\xff\xfe", b"a\nb", b"\x1b[31mred", b"=cmd()", b"-rf", b"a b'c\"d"])
    os.rename(run_dir.path, os.path.join(os.fsencode(run_dir.path.parent), name))
    return f"the folder's name is {name!r}"


def wrong_kinds_in_json(run_dir: RunDir, random: Random) -> str:
    """A value of another kind than the entry has."""
    name = random.choice(["run.json", "metrics.json"])
    path = run_dir.path / name
    content = json.loads(path.read_text())
    key = random.choice(list(content))
    value = random.choice([None, [], {}, "x", -1, 1e308, "NaN", [[[]]], True, 10**400])
    path.write_text(json.dumps(content | {key: value}))
    return f"{name}: {key} is {str(value)[:20]}"


def data_that_swells(run_dir: RunDir, random: Random) -> str:
    """Data that is small on disk and huge in memory, or says that it is."""
    kind = random.choice(["npz header", "npz bomb", "picture", "gzip"])
    config = yaml.safe_load((run_dir.path / "config.yaml").read_text())
    folder = run_dir.path / "data"
    folder.mkdir()
    own = {key: value for key, value in config["data"].items() if key != "_target_"}
    npz = {"_target_": "vae_lab.data.npz.NPZ", **own, "keys": None}
    if kind == "npz header":
        header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 28, 28), }".ljust(117) + "\n"
        with zipfile.ZipFile(folder / "x.npz", "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        config["data"] = npz | {"path": str(folder / "x.npz")}
    elif kind == "npz bomb":
        header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4000000, 28, 28), }".ljust(117) + "\n"
        with (
            zipfile.ZipFile(folder / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("x.npy", "w", force_zip64=True) as file,
        ):
            file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
            for _ in range(40):
                file.write(bytes(4_000_000))
        config["data"] = npz | {"path": str(folder / "x.npz")}
    elif kind == "picture":
        (folder / "a").mkdir()
        chunk = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (folder / "a" / "x.png").write_bytes(png)
        target = "vae_lab.data.image_folder.ImageFolder"
        former = FORMERLY["data"][target]
        config["data"] = {**own, **former, "_target_": target, "path": str(folder), "size": [28, 28], "channels": 1}
    else:
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True)
        with gzip.open(raw / "train-images-idx3-ubyte.gz", "wb") as file:
            file.write(struct.pack(">IIII", 0x803, 2**31 - 1, 28, 28))
            for _ in range(50):
                file.write(bytes(4_000_000))
        config["data"] = own | {"_target_": "vae_lab.data.mnist.MNIST", "root": str(folder), "validation_size": 0}
    (run_dir.path / "config.yaml").write_text(yaml.safe_dump(config))
    return f"data: {kind}"


KINDS: tuple[Callable[[RunDir, Random], str], ...] = (
    a_target_somewhere,
    a_target_somewhere,
    a_pickle_in_a_checkpoint,
    marks_in_a_checkpoint,
    a_part_that_leads_out,
    a_part_that_leads_out,
    names_of_temporary_files,
    no_regular_file,
    no_regular_file,
    a_yaml,
    texts_in_places,
    a_name_that_is_no_text,
    wrong_kinds_in_json,
    data_that_swells,
)
LISTINGS = (("runs", "root=runs"), ("compare", "run=runs/*"), ("report", "run=runs"))


def hostile(trial: Trial) -> str:
    """A good run beside a hostile one: the good one is listed, and nothing of the hostile one happens."""
    outside = trial.folder / OUTSIDE
    (outside / "folder").mkdir(parents=True)
    (outside / "file.txt").write_text("untouched")
    good, bad = copy_of(trial, "plain", "runs/good"), copy_of(trial, "snapshots", "runs/bad")
    what = trial.random.choice(KINDS)(bad, trial.random)
    kept = content_of(outside), content_of(good.path)
    ended = run(trial, "runs", "root=runs", codes=[0])
    expect("good" in ended.output, f"{what}: the good run must be listed", ended)
    expect("\x1b]" not in ended.output and "\x1b[31m" not in ended.output, f"{what}: no control characters", ended)
    path = next((path for path in os.listdir(os.fsencode(trial.folder / "runs")) if path != b"good"), b"bad")
    bad_path = f"runs/{os.fsdecode(path)}"
    quick = ["threads=1", "num_samples=2", "estimator.num_samples=5"]
    commands = [
        ["evaluate", f"run={bad_path}", *quick],
        ["plot", f"run={bad_path}"],
        ["report", f"run={bad_path}"],
        ["train", f"run_dir={bad_path}", "trainer.max_epochs=4", "threads=1"],
        ["compare", f"run={bad_path},runs/good", "out=page.html"],
        ["verify", f"run={bad_path}"],
    ]
    for arguments in trial.random.sample(commands, 2):
        ended = run(trial, *arguments, codes=[0, 1, MISTAKE])
        expect(
            not (trial.folder / CANARY).exists() and not (bad.path / CANARY).exists(), f"{what}: no code runs", ended
        )
        expect(content_of(outside) == kept[0], f"{what}: nothing outside of the run changes", ended)
        expect(content_of(good.path) == kept[1], f"{what}: the good run stays as it is", ended)
    return what
