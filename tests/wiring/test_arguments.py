"""Plain commands: how their arguments are read, and what `vae-lab` makes of their help, mistakes and ends."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vae_lab.cli import COMMANDS, main
from vae_lab.commands.help import WIDTH, Command
from vae_lab.errors import ConfigError, Failed
from vae_lab.wiring.arguments import Arguments, Key, read_arguments

KEYS = {
    "runs": Key("run directories", is_list=True, is_path=True),
    "where": Key("conditions such as model.latent_dim>=5", is_list=True),
    "format": Key("how it is written", default="table", choices=("table", "csv")),
    "seed": Key("seeds the bootstrap", default="0"),
    "title": Key("a title"),
}


def read(*arguments: str) -> Arguments:
    return read_arguments("list", arguments, KEYS)


def test_arguments_not_given_have_their_defaults() -> None:
    arguments = read()
    assert arguments.all("runs") == [] and arguments.one("format") == "table" and arguments.one("title") == ""
    assert arguments.whole("seed", at_least=0) == 0


def test_argument_is_cut_at_its_first_equals_sign() -> None:
    assert read("where=status=finished").all("where") == ["status=finished"]
    assert read("title=a=b,c d").one("title") == "a=b,c d"


def test_list_is_cut_at_commas_outside_of_brackets_and_repeated_keys_are_joined() -> None:
    assert read("where=a=1,b>=2", "where=c=3").all("where") == ["a=1", "b>=2", "c=3"]
    assert read("where=hidden=[400,200],b=(1,2)").all("where") == ["hidden=[400,200]", "b=(1,2)"]
    assert read("where=[a=1,b=2]").all("where") == ["a=1", "b=2"]


def test_existing_path_is_taken_whole_whatever_signs_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a,b", "a[1", "x=1", "[c,d]", "ein Lauf é"):
        (tmp_path / name).mkdir()
        assert read(f"runs={name}").all("runs") == [name]
    assert read("runs=a,b", "runs=x=1,a[1").all("runs") == ["a,b", "x=1", "a[1"]
    assert read("runs=a,c").all("runs") == ["a", "c"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("runs=~/a,b").all("runs") == ["~/a,b"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rnus=a"], ["rnus", "vae-lab list", "did you mean 'runs'?", "where"]),
        (["outputs"], ["'outputs'", "key=value", "runs", "vae-lab list --help"]),
        (["--format=csv"], ["'--format=csv'", "key=value"]),
        (["format=cvs"], ["format=cvs", "did you mean 'csv'?"]),
        (["format=csv", "format=table"], ["format takes one value", "csv and table"]),
        (["where="], ["where must not be empty", "leave it out"]),
        (["where=a=1,,b=2"], ["where must not be empty", "where=a=1,,b=2"]),
    ],
)
def test_mistake_names_argument_rule_and_remedy(arguments: list[str], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read(*arguments)
    for part in expected:
        assert part in str(error.value)


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "1e3", "²"])
def test_whole_number_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"seed must be an integer >= 0, got '{text}'"):
        read(f"seed={text}").whole("seed", at_least=0)


# ---- through the program ----


@pytest.fixture
def add_command(monkeypatch: pytest.MonkeyPatch):
    """Makes a function the plain command `list`."""

    def add(function) -> None:
        module = ModuleType("vae_lab.a_plain_command")
        vars(module).update({"list": function, "KEYS": KEYS})
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(COMMANDS, "list", Command("list things", "format=csv", plain="vae_lab.a_plain_command"))

    return add


def test_plain_command_prints_the_path_that_it_wrote_last(add_command, capsys: pytest.CaptureFixture[str]) -> None:
    def command(arguments: Arguments) -> Path:
        print(arguments.one("format"))
        return Path("outputs/page.html")

    add_command(command)
    assert main(["list", "format=csv"]) == 0
    assert capsys.readouterr().out.splitlines() == ["csv", "outputs/page.html"]


def test_plain_command_without_a_path_prints_nothing_more(add_command, capsys: pytest.CaptureFixture[str]) -> None:
    add_command(lambda arguments: None)
    assert main(["list"]) == 0
    assert capsys.readouterr().out == ""


def test_help_of_a_plain_command_shows_its_keys(add_command, capsys: pytest.CaptureFixture[str]) -> None:
    add_command(None)
    assert main(["list", "where=a", "--help"]) == 0
    out = capsys.readouterr().out
    for expected in ("vae-lab list: list things", "vae-lab list format=csv", "format=table|csv", "(default: table)"):
        assert expected in out
    assert "runs=a,b or runs=a runs=b" in out
    assert max(map(len, out.splitlines())) <= WIDTH
    assert main(["--help"]) == 0
    assert "vae-lab list format=csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("a word"), 2), (Failed("a word"), 1), (PermissionError(13, "a word"), 2)]
)
def test_known_error_of_a_plain_command_is_one_message(
    error: Exception, code: int, add_command, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(arguments: Arguments) -> None:
        raise error

    add_command(command)
    assert main(["list"]) == code
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("vae-lab list: ") and "a word" in message


def test_bug_of_a_plain_command_keeps_its_traceback(add_command, capsys: pytest.CaptureFixture[str]) -> None:
    add_command(lambda arguments: {}["nothing"])
    assert main(["list"]) == 1
    assert "KeyError" in capsys.readouterr().err


def test_arguments_are_read_without_heavy_imports() -> None:
    heavy = "{'torch', 'hydra', 'pandas', 'pytorch_lightning', 'numpy'}"
    modules = "vae_lab.cli, vae_lab.wiring.arguments, vae_lab.runs.directory"
    code = f"import sys, {modules}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
