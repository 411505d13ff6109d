"""What keeps the package from failing on Windows before it is tried: no module needs POSIX to be imported."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vae_lab"
IMPORT_ALL = """
import importlib, signal, sys

import filelock, torch, pytorch_lightning, tensorboard, hydra, matplotlib.figure, pandas, optuna  # not ours to judge

for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
for name in sys.argv[1:]:
    importlib.import_module(name)
print("imported", sum(name.startswith("vae_lab.") for name in sys.modules))
"""


@pytest.mark.slow
def test_every_module_is_imported_without_the_modules_and_signals_that_only_posix_has() -> None:
    files = [file.relative_to(PACKAGE.parent).with_suffix("") for file in sorted(PACKAGE.rglob("*.py"))]
    names = [".".join(file.parts).removesuffix(".__init__") for file in files if file.name != "__main__"]
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= len(names) - 1
