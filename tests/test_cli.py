"""The command line: help, exit codes, one message per mistake, and nothing left behind."""

import argparse
import inspect
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import hydra
import pytest
from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from vae_lab import __version__
from vae_lab.cli import COMMANDS, main
from vae_lab.commands import evaluate, train
from vae_lab.commands.task import Task
from vae_lab.commands.typed import SYNONYMS
from vae_lab.data.files import root_folder
from vae_lab.errors import ConfigError, Interrupted, NonFiniteDensity, nearest
from vae_lab.wiring.arguments import read_arguments
from vae_lab.wiring.folders import CommandLine, package_configs
from vae_lab.wiring.keys import CommandKeys


@pytest.fixture(autouse=True)
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, in which Hydra must leave nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return tmp_path


@pytest.fixture
def replace_train(monkeypatch: pytest.MonkeyPatch):
    """Puts another function in the place of the commands `train` and `evaluate`."""

    def replace(function):
        monkeypatch.setattr(train, "train", function)
        monkeypatch.setattr(evaluate, "evaluate", function)

    return replace


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
    )


def test_help_lists_commands_with_an_example_before_pytorch_could_be_imported() -> None:
    code = "import sys; from vae_lab.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    for name, command in COMMANDS.items():
        assert command.summary in result.stdout
        assert f"vae-lab {name} {command.example}" in result.stdout


def test_help_of_a_command_shows_every_choice_and_those_of_a_folder_of_ones_own(
    work_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work_folder / "mine" / "model").mkdir(parents=True)
    (work_folder / "mine" / "model" / "transformer.yaml").write_text("# A network of my own.\nx: 1\n")
    assert main(["train", "--config-dir", "mine", "--help"]) == 0
    out = capsys.readouterr().out
    for expected in (
        "* digits",
        "  mnist ",
        "frey_face",
        "* mlp",
        "conv",
        "transformer",
        "A network of my own.",
    ):
        assert expected in out
    assert max(map(len, out.splitlines())) <= 110


def test_help_shows_a_choice_that_is_not_taken_where_a_sweep_takes_all_of_a_group(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "sweep=latent_dims", "--help"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("The keys of another choice: vae-lab train ") and "model=" not in last


@pytest.mark.slow
def test_examples_of_the_help_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in COMMANDS.items():
        if command.plain:
            kind = getattr(import_module(command.plain), f"{name.title()}Settings")
            read_arguments(name, command.example.split(), kind)
        else:
            assert main([name, *command.example.split(), "--cfg", "job", "--resolve"]) == 0


def test_config_is_printed_resolved_and_overrides_may_stand_between_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "data=frey_face", "--cfg", "job", "--resolve", "model.latent_dim=7"]) == 0
    captured = capsys.readouterr()
    assert "latent_dim: 7" in captured.out and "${" not in captured.out
    assert "GaussianLikelihood" in captured.out and "hydra" not in captured.out
    assert captured.err == ""


MISTAKES = {
    "part taken away": ("~optimizer", ["optimizer must not be taken away"]),
    "folder that cannot be made": (
        "output_root=/proc/runs matmul_backend=default compile=false",
        ["/proc/runs", "cannot be made", "output_root"],
    ),
    "a misspelt key": ("model.latent_dmi=5", ["model.latent_dmi", "did you mean model.latent_dim=5?"]),
    "a key without its group": ("latent_dim=5", ["did you mean model.latent_dim=5?"]),
    "a key in the wrong group": ("data.latent_dim=5", ["did you mean model.latent_dim=5?", "batch_size"]),
    "a misspelt group": ("dta=mnist", ["dta", "did you mean data"]),
    "a misspelt choice": ("data=mnst", ["data=mnst", "did you mean 'mnist'", "digits", "frey_face"]),
    "an unknown choice": ("objective=zzz", ["objective=zzz", "choose one of", "aevb"]),
    "a misspelt choice in a sweep": ("-m data=mnst,digits", ["data=mnst", "did you mean 'mnist'"]),
    "a misspelt key in a sweep": ("-m model.latent_dmi=2,3", ["did you mean model.latent_dim=2,3?"]),
    "a sweep without -m": ("model=mlp,conv", ["-m", "model=[mlp,conv]"]),
    "an open bracket": ("model.encoder.hidden=[5", ["model.encoder.hidden=[5", "key=value"]),
    "no value": ("model", ["'model'", "key=value"]),
    "a key without a value, taken away": ("~threads", ["~threads", "threads has none"]),
    "a key of a number": ("seed.x=1", ["seed.x", "did you mean seed=1?"]),
    "a key of a list": ("model.encoder.hidden.x=1", ["model.encoder.hidden.x=1"]),
    "a plus too many": ("+model.latent_dim=5", ["model.latent_dim=VALUE", "without the +"]),
    "a group added twice": ("+data=mnist", ["data=CHOICE", "without the +"]),
    "nothing to delete": ("~nope", ["nope"]),
    "an open reference": ("seed=${nope}", ["seed", "nope"]),
    "a missing value": ("data=npz", ["data.path", "data.path=VALUE"]),
    "an unknown flag": ("--lr=3", ["--lr=3", "key=value"]),
    "a flag alone": ("--resolve", ["--cfg"]),
    "everything for configs": ("--config-dir /", ["--config-dir", "folder of configs", "got /"]),
    "no such folder": ("--config-dir nowhere", ["--config-dir", "nowhere"]),
    "no such config": ("--config-name trian", ["'trian'", "did you mean 'train'?"]),
    "a setting of Hydra": ("hydra.swep=1", ["hydra.swep", "--cfg hydra"]),
    "a number out of range": ("model.latent_dim=0", ["model.latent_dim", ">= 1", "0"]),
    "a value of the wrong type": ("data.batch_size=many", ["data.batch_size", "many"]),
    "a misspelt value": ("data.binarization=dynamc", ["data.binarization", "dynamic"]),
    "a setting of no part": ("+model.depth=3", ["model.depth", "VAE"]),
    "a class that is not there": ("model._target_=nowhere.Net", ["model._target_", "nowhere"]),
    "an empty run_dir": ("run_dir=", ["run_dir", "leave it out"]),
    "a run_dir with other things": ("run_dir=/usr", ["run_dir=/usr", "new or empty folder", "bin"]),
    "no run folder at all": ("output_root=null", ["output_root", "null"]),
    "a value that Hydra asserts": ("hydra.verbose=0.5", ["hydra.verbose=0.5"]),
    "a number in place of a choice": ("+data=[1]", ["+data=[1]"]),
    "a home that nobody has": ("data=npz data.path='~nobody_here/x.npz'", ["~", "home folder", "HOME"]),
    "what other programs call it": ("epochs=3", ["did you mean trainer.max_epochs=3?"]),
    "its last name": ("batch_size=64", ["did you mean data.batch_size=64?"]),
    "a short name": ("lr=1e-3", ["did you mean optimizer.lr=1e-3?"]),
    "a flag for a key": ("--epochs 3", ["--epochs is not a flag", "key=value", "trainer.max_epochs=3"]),
    "a flag with a hyphen": ("--latent-dim=2", ["model.latent_dim=2"]),
    "a choice without its group": ("mnist", ["experiment=mnist", "data=mnist"]),
    "a key of another choice": ("data.path=x", ["data=image_folder", "data=npz"]),
    "a list with spaces": ("model.encoder.hidden=[5 6]", ["spaces", "[1,2]"]),
    "a comma at the end": ("data=mnist,", ["'data=mnist,'", "ends with a comma"]),
    "a bracket that nobody closes": ("name=a(b", ["'name=a(b'", "( and )"]),
    "two equals signs": ("data.batch_size==3", ["data.batch_size==3", "key=value"]),
    "a file that is not there": ("data=npz data.path=nope.npz", ["data.path", "nope.npz"]),
}


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_one_message_and_exit_code_2(
    arguments: str, expected: list[str], work_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments.split()]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    *before, message = captured.err.splitlines()
    assert message.startswith("vae-lab train: ") and "Exception" not in message
    assert all(line.startswith("vae-lab train: training with ") for line in before)
    for part in expected:
        assert part in message
    assert list(work_folder.iterdir()) == []


def test_several_mistakes_are_told_together(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "seeed=1", "data=mnst", "--latent_dim", "2", "conv", "model=mlp"]) == 2
    said = capfd.readouterr().err
    for part in ("seed=1?", "did you mean 'mnist'", "model.latent_dim=2", "model=conv"):
        assert part in said
    assert main(["runs", "rot=x", "shw=3"]) == 2
    said = capfd.readouterr().err
    assert "'root'" in said and "'show'" in said


def test_names_of_other_programs_stand_for_keys_that_there_are() -> None:
    keys = CommandKeys([package_configs()], "train")
    assert set(SYNONYMS.values()) <= {*keys.keys, *keys.chosen}


@pytest.mark.parametrize("line", ["help train", "train help", "train -h"])
def test_help_is_a_word_as_well(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    assert "max_samples=null" in capsys.readouterr().out


def test_help_and_version_are_words_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0 and main(["version"]) == 0
    out = capsys.readouterr().out
    assert "vae-lab COMMAND" in out and out.splitlines()[-1] == f"vae-lab {__version__}"


def make_run(path: Path) -> None:
    """What makes a folder a run directory for whoever looks no further."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("seed: 0\n")
    (path / "run.json").write_text('{"status": "finished"}')


@pytest.mark.slow
def test_a_path_alone_is_a_run(replace_train, work_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    replace_train(lambda cfg: found.append(cfg.run) or work_folder)
    for name in ("outputs/x", "y"):
        make_run(Path(name))
    for line in (["outputs/x", "run=y"], ["outputs/*", "seed=1"], ["latest"]):
        assert main(["evaluate", *line]) == 0
    assert found == [["outputs/x", "y"], ["outputs/*"], ["latest"]]
    assert main(["evaluate"]) == 2
    assert "run must be given" in capsys.readouterr().err


def test_first_line_says_what_happens_before_hydra_and_pytorch_are_imported(work_folder: Path) -> None:
    code = (
        "import sys\n"
        "class Watch:\n"
        "    def write(self, text):\n"
        "        print({'torch', 'hydra'} & set(sys.modules), text)\n"
        "        sys.exit()\n"
        "sys.stderr = Watch()\n"
        "from vae_lab.cli import main\n"
        "main(['train', *sys.argv[1:]])"
    )
    what = "training with data=mnist seed=3"
    one, several = python("-c", code, *what.split()[2:]), python("-c", code, *what.split()[2:], "-m")
    assert one.stdout == f"set() vae-lab train: loading PyTorch, then {what}\n"
    assert several.stdout == f"set() vae-lab train: {what}\n"
    planned = python("-c", code.replace("train", "reproduce"), "scale=quick")
    assert planned.stdout == "set() vae-lab reproduce: reproducing scale=quick\n", "it leaves PyTorch to its trainings"


@pytest.mark.parametrize(
    ("arguments", "is_command"),
    [
        (["-m", "vae_lab.errors"], True),
        (["-c", "from vae_lab.__main__ import main; main()", "--version"], True),  # as the script vae-lab
        (["-m", "theirs.program"], False),
    ],
)
def test_garbage_is_collected_rarely_in_a_command_and_as_ever_in_a_program_that_imports_the_lab(
    arguments: list[str], is_command: bool, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("import vae_lab")
    (tmp_path / "theirs" / "program.py").touch()
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, gc\natexit.register(lambda: print(*gc.get_threshold()))\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    ended = subprocess.run([sys.executable, *arguments], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    assert (int(ended.stdout.split()[-3]) > 10_000) == is_command


def test_run_that_is_not_there_is_refused_before_pytorch_is_imported(work_folder: Path) -> None:
    code = "import sys; from vae_lab.cli import main; print(main(['evaluate', 'run=nowhere']), 'torch' in sys.modules)"
    result = python("-c", code)
    assert result.stdout == "2 False\n" and result.stderr.startswith("vae-lab evaluate: nowhere is no run directory")


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


def test_nearest_lists_all_names_unless_they_are_many() -> None:
    assert nearest("mnst", ["mnist", "digits"]) == "did you mean 'mnist'? (digits, mnist)"
    assert nearest("qqqq", ["mnist", "digits"]) == "choose one of digits, mnist"
    assert nearest("key7", [f"key{i}" for i in range(5, 40, 2)]).startswith("did you mean 'key7'")
    assert "key39" not in nearest("key7", [f"key{i}" for i in range(40)])


def test_full_error_brings_the_traceback_back(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert main(["train", "model.latent_dim=0"]) == 2
    assert "Traceback" in capfd.readouterr().err
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_last_line_is_the_artefact_and_the_command_sees_the_users_environment(
    replace_train, work_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def command(cfg: DictConfig) -> Path:
        seen.append((cfg.seed, "hydra" in cfg, os.environ.get("HYDRA_FULL_ERROR"), sys.argv[:]))
        print("on the way")
        return Path("outputs/a_run")

    replace_train(command)
    argv = sys.argv[:]
    assert main(["train", "seed=0"]) == 0
    assert capsys.readouterr().out.splitlines() == ["on the way", "outputs/a_run"]
    assert seen == [(0, False, None, argv)]
    assert sys.path[-1] == str(work_folder)
    assert list(work_folder.iterdir()) == []


def test_config_is_composed_once_and_what_is_hydras_has_its_effect(
    replace_train, work_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work_folder / "watching.py").write_text(
        "from pathlib import Path\n\nfrom hydra.experimental.callback import Callback\n\n\nclass Watching(Callback):\n"
        "    def on_job_start(self, config, **_):\n        Path('seen').write_text('a job')\n"
    )
    composed, seen = [], []
    monkeypatch.setattr("hydra.compose", lambda *given, **also: (composed.append(given), compose(*given, **also))[1])
    main_of_hydra = hydra.main
    monkeypatch.setattr("hydra.main", lambda **settings: (seen.append("hydra.main"), main_of_hydra(**settings))[1])
    replace_train(lambda cfg: seen.append((cfg.name, os.environ.get("A_WORD"), logging.getLogger().level)))
    assert main(["train", "name=${hydra:runtime.output_dir}", "hydra.verbose=true"]) == 0
    assert len(composed) == 1 and seen == [(str(work_folder), None, logging.DEBUG)]
    seen.clear()
    said = ["+hydra.job.env_set.A_WORD=said", "hydra/job_logging=default"]
    assert main(["train", *said, "name=${hydra:help.header}"]) == 0
    assert seen == [("vae_lab is powered by Hydra.\n", "said", logging.INFO)]
    assert (work_folder / "vae_lab.log").is_file() and len(composed) == 2
    seen.clear()
    assert main(["train", *said, "+hydra.callbacks.own._target_=watching.Watching"]) == 0
    assert seen == ["hydra.main", (None, "said", logging.INFO)]
    assert (work_folder / "seen").read_text() == "a job"


def test_further_processes_of_a_training_print_no_artefact(
    replace_train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_train(lambda cfg: Path("outputs/a_run"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    relaunched = ['hydra.run.dir="."', "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null"]
    assert main(["train", *relaunched]) == 0
    assert capsys.readouterr().out == ""


def test_bug_keeps_its_traceback(replace_train, capfd: pytest.CaptureFixture[str]) -> None:
    def command(cfg: DictConfig) -> Path:
        return [][cfg.seed]

    replace_train(command)
    assert main(["train"]) == 1
    err = capfd.readouterr().err
    assert "Traceback" in err and "IndexError" in err


@pytest.mark.slow
def test_value_error_is_a_mistake_only_where_it_is_a_config_error(
    replace_train, capfd: pytest.CaptureFixture[str]
) -> None:
    replace_train(lambda cfg: root_folder(""))
    assert main(["train"]) == 2
    assert "Traceback" not in capfd.readouterr().err
    replace_train(lambda cfg: root_folder("a null \0 byte").stat())
    assert main(["train"]) == 1
    err = capfd.readouterr().err
    assert "Traceback" in err and "ValueError" in err


def test_diverged_training_is_one_message_and_exit_code_1(replace_train, capfd: pytest.CaptureFixture[str]) -> None:
    def command(cfg: DictConfig) -> Path:
        raise NonFiniteDensity("the loss is NaN at step 7: lower optimizer.lr")

    replace_train(command)
    assert main(["train"]) == 1
    assert capfd.readouterr().err.splitlines()[1:] == ["vae-lab train: the loss is NaN at step 7: lower optimizer.lr"]


@pytest.mark.slow
def test_a_refused_sweep_of_another_command_leaves_nothing_behind(work_folder: Path) -> None:
    assert main(["reproduce", "-m", "scale=null", "jobs=1,2"]) == 2
    assert not list(work_folder.iterdir())


@pytest.mark.parametrize("stop", [Interrupted("continue: vae-lab train run_dir=r"), KeyboardInterrupt()])
@pytest.mark.parametrize("sweep", [[], ["-m", "seed=1,2"]])
def test_interruption_stops_everything_with_exit_code_130(
    stop: BaseException, sweep: list[str], replace_train, work_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_run(Path("r"))
    calls = []

    def command(cfg: DictConfig) -> Path:
        calls.append(cfg.seed)
        raise stop

    replace_train(command)
    assert main(["evaluate", "run=r", *sweep]) == 130
    err = capfd.readouterr().err
    assert err.splitlines()[-1] == f"vae-lab evaluate: {str(stop) or 'interrupted'}"
    assert "Traceback" not in err and len(calls) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("errors", "code"),
    [((None, None), 0), ((ConfigError, None), 2), ((KeyError, None), 1), ((ConfigError, KeyError), 1)],
)
def test_failing_job_of_a_sweep_leaves_the_others_running(
    errors: tuple[type[Exception] | None, ...],
    code: int,
    replace_train,
    work_folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def command(cfg: DictConfig) -> Path:
        error = (*errors, None)[cfg.seed]
        if error is not None:
            raise error(f"job of seed {cfg.seed}")
        return Path(f"outputs/run{cfg.seed}")

    replace_train(command)
    assert main(["evaluate", "run=r", "-m", "seed=0,1,2"]) == code
    captured = capfd.readouterr()
    good = [seed for seed in range(3) if seed >= len(errors) or errors[seed] is None]
    assert captured.out.splitlines() == [f"outputs/run{seed}" for seed in good]
    failed = 3 - len(good)
    assert (f"{failed} of 3 jobs failed" in captured.err) == bool(failed)
    assert [path.name for path in work_folder.iterdir()] == []


def test_jobs_in_other_processes_report_as_well(work_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = CommandLine("train", "train", [work_folder], [])
    task = Task(line, work_folder, None)
    assert pickle.loads(pickle.dumps(task)) == task


OWN_NETWORK = """
from vae_lab.networks.mlp import MLPEncoder


class MyEncoder(MLPEncoder):
    def __init__(self, image_shape, *, width: int):
        super().__init__(image_shape, hidden=[width, width], activation="tanh")
"""


OWN_MODEL = """
# A network of my own.
# vae-lab train --config-dir my_configs model=mine
_target_: vae_lab.model.VAE
latent_dim: 3
encoder:
  _target_: my_networks.MyEncoder
  _partial_: true
  width: 8
decoder:
  _target_: vae_lab.networks.mlp.MLPDecoder
  _partial_: true
  hidden: [8]
  activation: tanh
likelihood: ${likelihood}
initialization: ${initialization}
"""


@pytest.mark.slow
def test_users_own_network_is_found_in_the_working_folder_and_its_config_in_a_folder(
    work_folder: Path,
) -> None:
    (work_folder / "my_networks.py").write_text(OWN_NETWORK)
    (work_folder / "my_configs" / "model").mkdir(parents=True)
    (work_folder / "my_configs" / "model" / "mine.yaml").write_text(OWN_MODEL)
    program = Path(sys.executable).with_name("vae-lab")  # whose folder, not the working one, opens sys.path
    command = "train --config-dir my_configs model=mine smoke=on threads=1 callbacks=none"
    result = python(str(program), *command.split())
    assert result.returncode == 0, result.stderr
    config = (work_folder / result.stdout.splitlines()[-1] / "config.yaml").read_text()
    assert "my_networks.MyEncoder" in config and "latent_dim: 3" in config
    known = {"my_networks.py", "my_configs", "__pycache__", "outputs"}
    assert {path.name for path in work_folder.iterdir()} <= known


@pytest.mark.slow
def test_accident_in_a_sweep_is_a_traceback_and_no_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def accident(*_: object, **__: object) -> None:
        raise ValueError("a bug of ours")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vae_lab.sweeps.sweep.run_jobs", accident)
    line = ["model.latent_dim=2,3", "sweep.speed_seconds=0", "data=digits"]
    assert main(["train", "-m", *line]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_ctrl_c_waits_for_the_end_of_an_import_and_of_composing_a_config(tmp_path, monkeypatch):
    from vae_lab.__main__ import CtrlC

    handler = CtrlC()
    ours = signal.signal(signal.SIGINT, handler)
    monkeypatch.syspath_prepend(tmp_path)
    interrupt = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nis_whole = True\n"
    (tmp_path / "module_that_is_interrupted.py").write_text(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            import module_that_is_interrupted  # pyright: ignore[reportMissingImports]

            assert module_that_is_interrupted.is_whole and handler.waits
            time.sleep(5)
        for file in (
            f"omegaconf/{Path(inspect.getfile(OmegaConf)).name}",
            f"hydra/_internal/{Path(inspect.getfile(ConfigLoaderImpl)).name}",
            Path(inspect.getfile(argparse)).name,
        ):
            with pytest.raises(KeyboardInterrupt):
                exec(compile(interrupt, str(tmp_path / file), "exec"), (names := {}))
                assert names["is_whole"]
                time.sleep(5)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not handler.waits
    finally:
        signal.signal(signal.SIGINT, ours)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hydra.run.dir=X", ["hydra.run.dir", "output_root=FOLDER", "run_dir=FOLDER"]),
        ("-m hydra.sweep.dir=X seed=1,2", ["hydra.sweep.dir", "output_root=FOLDER"]),
        ("hydra.output_subdir=X", ["hydra.output_subdir", "run_dir=FOLDER"]),
        ("-m hydra.sweep.subdir=X seed=1,2", ["hydra.sweep.subdir", "output_root=FOLDER"]),
        ("hydra.job.chdir=true", ["hydra.job.chdir", "run_dir=FOLDER"]),
        ("callbacks=3", ["callbacks=3 is no choice of callbacks"]),
        ("trainer.strategy=ddp_spawn", ["copies this process", "trainer.strategy=ddp"]),
        ("trainer.strategy=ddp_fork", ["trainer.strategy=ddp"]),
        ("trainer.strategy=ddp_notebook", ["trainer.strategy=ddp"]),
        ("+trainer.accumulate_grad_batches=2", ["data.batch_size"]),
        ("+trainer.gradient_clip_val=1", ["gradient_clip_norm=NORM"]),
        ("output_root=", ["output_root must name a folder, got an empty text"]),
        ("-m output_root= seed=1,2", ["output_root must name a folder"]),
        ("-m seed=glob(*)", ["seed=glob(*) finds no value"]),
        ("-m ~seed model.latent_dim=2,3", ["seed must be given"]),
        ("-m model.latent_dim=2,-1 sweep.dry_run=true", ["model.latent_dim=-1", ">= 1"]),
        ("-m run_dir=X seed=1,2", ["run_dir must be null in a sweep"]),
        ("sweep.jobs=abc", ["sweep.jobs must be an integer"]),
        ("trainer.devices=-2", ["trainer", "devices", "-2"]),
        ("trainer.devices=abc", ["trainer.devices='abc'"]),
        ("optimizer.betas=3", ["optimizer or schedule has a value of a wrong kind"]),
        ("run_dir=r=1", ["\"run_dir='r=1'\""]),
    ],
)
def test_what_cannot_be_trained_is_refused_and_nothing_is_written(line, words, work_folder: Path, capfd) -> None:
    assert main(["train", "smoke=on", *line.split()]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said and all(word in said for word in words), said
    assert not list(work_folder.iterdir())


@pytest.mark.parametrize("name", ["2024_01_01", "1e3", "true"])
def test_names_and_paths_are_the_texts_that_were_typed(name: str, replace_train, work_folder: Path) -> None:
    found = []
    replace_train(lambda cfg: found.append((cfg.run_dir, cfg.name)) or work_folder)
    assert main(["train", f"run_dir={name}", f"name={name}"]) == 0
    assert found == [(name, name)]


@pytest.mark.parametrize(
    "content", [b"seed: 1\nseed: 2\n", b"a:\n\tseed: 1\n", b"# caf\xe9\n", b"\xef\xbb\xbfseed: 1\n"]
)
def test_damaged_yaml_of_ones_own_is_named(content: bytes, work_folder: Path, capfd) -> None:
    file = work_folder / "own" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert main(["train", "--config-dir", str(work_folder / "own"), "experiment=mine"]) == 2
    said = capfd.readouterr().err
    assert "mine.yaml" in said and "Traceback" not in said
