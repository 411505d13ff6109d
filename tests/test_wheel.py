"""The built wheel, in an environment and a folder far from the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # may name the checkout
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by way of the source distribution, with the backend that is installed here."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment: the wheel, and for all else the packages of this one.

    Their folder is appended by a .pth file, whose own .pth files Python does not read: the editable checkout
    stays unseen.
    """
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, folder=folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, folder=folder)
    purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", folder=folder)
    (Path(purelib.stdout.strip()) / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def test_wheel_holds_every_config_and_reference_table(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in (ROOT / "configs").rglob("*.yaml"):
        assert f"vae_lab/{file.relative_to(ROOT).as_posix()}" in names
    for file in (ROOT / "vae_lab").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert file.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.startswith(("tests/", "configs/"))]


def test_installed_package_trains_from_another_folder(programs: Path, tmp_path: Path) -> None:
    where = run(programs / "python", "-c", "import vae_lab; print(vae_lab.__file__)", folder=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(programs.parent)
    arguments = ["train", "smoke=on", "threads=1", "callbacks=none"]
    result = run(programs / "vae-lab", *arguments, folder=tmp_path)
    assert (tmp_path / result.stdout.splitlines()[-1] / "metrics.json").is_file()
    assert os.listdir(tmp_path) == ["outputs"]
    assert "experiment=" in run(programs / "vae-lab", "train", "--help", folder=tmp_path).stdout
