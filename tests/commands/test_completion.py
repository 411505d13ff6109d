"""Tab in real shells: commands, keys, choices and run directories."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vae_lab.cli import COMMANDS, main
from vae_lab.commands.completion import SCRIPTS, candidates


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one run and one folder of runs, and `vae-lab` on the search path of programs."""
    for name in ("a-1", "b-2"):
        (tmp_path / "outputs" / "mnist" / name).mkdir(parents=True)
        (tmp_path / "outputs" / "mnist" / name / "run.json").write_text("{}")
    (tmp_path / "images.npz").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


CASES = {
    "vae-lab ev": ["evaluate "],
    "vae-lab help pl": ["plot "],
    "vae-lab train mod": ["model=", "model."],
    "vae-lab train model.la": ["model.latent_dim="],
    "vae-lab train model=conv model.encoder.ch": ["model.encoder.channels="],
    "vae-lab train data=mn": ["data=mnist "],
    "vae-lab train -m model=mlp,c": ["model=mlp,conv "],
    "vae-lab train experiment=mnist max_samples=": ["max_samples=1000000 "],
    "vae-lab train parameter_prior=": ["parameter_prior=true ", "parameter_prior=false "],
    "vae-lab train smoke=on --he": ["--help "],
    "vae-lab evaluate run=": ["run=latest ", "run=outputs/"],
    "vae-lab evaluate run=outputs/mnist/": ["run=outputs/mnist/a-1 ", "run=outputs/mnist/b-2 "],
    "vae-lab evaluate run=outputs/mnist/a-1,outputs/mnist/b": ["run=outputs/mnist/a-1,outputs/mnist/b-2 "],
    "vae-lab plot out": ["outputs/"],
    "vae-lab train data=npz data.path=": ["data.path=images.npz ", "data.path=outputs/"],
    "vae-lab evaluate run=latest data_root=im": ["data_root=images.npz "],
    "vae-lab train data=image_folder data.test_path=o": ["data.test_path=outputs/"],
    "vae-lab train run_dir=outputs/mnist/b": ["run_dir=outputs/mnist/b-2 "],
    "vae-lab runs format=la": ["format=latex "],
    "vae-lab report swe": ["sweep="],
    "vae-lab compare run=outputs/m": ["run=outputs/mnist/"],
    "vae-lab nonsense da": [],
}


@pytest.mark.parametrize("line", CASES)
def test_candidates_for_a_line(line: str, runs: Path) -> None:
    assert candidates(line, COMMANDS) == CASES[line]


def test_candidates_need_neither_hydra_nor_pytorch(runs: Path) -> None:
    code = (
        "import sys; from vae_lab.cli import main\n"
        "for line in ('vae-lab train mod', 'vae-lab runs fo', 'vae-lab report ru', 'vae-lab compare ou'):\n"
        "    main(['--complete', line])\n"
        "assert not {'torch', 'hydra', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_shell_without_a_script_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion", "bsh"]) == 2
    assert "did you mean 'bash' or 'zsh'?" in capsys.readouterr().err


def shell(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"there is no {name} here")


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_read_by_its_shell(name: str) -> None:
    subprocess.run([shell(name), "-n"], input=SCRIPTS[name], text=True, check=True, timeout=60)


def screen_after_tab(argv: list[str], line: str, expected: str) -> str:
    """What a shell shows at a terminal where its script is read and a line is typed, with a Tab at its end."""
    process, terminal = pty.fork()
    if not process:
        os.execvp(argv[0], argv)
    shown, end, ready = "", time.monotonic() + 60, "$((40+2))"
    load = f'eval "$(vae-lab --completion {Path(argv[0]).name})"; echo {ready}ready\n'
    os.write(terminal, load.encode())
    is_typed = False
    try:
        while time.monotonic() < end and expected not in shown:
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 4096).decode(errors="replace")
            if not is_typed and "42ready" in shown:
                is_typed, shown = True, ""
                os.write(terminal, f"{line}\t".encode())
        return shown
    finally:
        os.kill(process, 9)
        os.close(terminal)
        os.waitpid(process, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flags"), [("bash", ["--norc", "-i"]), ("zsh", ["-f", "-i"])])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vae-lab train experiment=quick", "experiment=quickstart "),
        ("vae-lab evaluate run=outputs/mnist/b", "run=outputs/mnist/b-2 "),
    ],
)
def test_tab_completes_at_a_terminal(name: str, flags: list[str], line: str, expected: str, runs: Path) -> None:
    assert expected in screen_after_tab([shell(name), *flags], line, expected)


BASH = """
eval "$(vae-lab --completion bash)"
COMP_LINE='vae-lab train data=mn' COMP_POINT=21 COMP_WORDS=(vae-lab train data = mn) COMP_CWORD=4
_vae_lab vae-lab; printf '%s|' "${COMPREPLY[@]}"
COMP_LINE='vae-lab train data=' COMP_POINT=19 COMP_WORDS=(vae-lab train data =) COMP_CWORD=3
_vae_lab vae-lab; printf '%s|' "${COMPREPLY[@]}"
COMP_LINE='vae-lab train mod' COMP_POINT=17 COMP_WORDS=(vae-lab train mod) COMP_CWORD=2
_vae_lab vae-lab; printf '%s|' "${COMPREPLY[@]}"
"""


def test_bash_gets_the_piece_behind_the_equals_sign(runs: Path) -> None:
    done = subprocess.run([shell("bash"), "-c", BASH], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("mnist |digits |emnist |") and done.stdout.endswith("model=|model.|")


@pytest.mark.slow
def test_fish_gets_whole_words(runs: Path) -> None:
    code = (
        "vae-lab --completion fish | source; complete -C 'vae-lab train data=mn'; complete -C 'vae-lab evaluate run='"
    )
    done = subprocess.run([shell("fish"), "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["data=mnist", "run=latest", "run=outputs/"]
