"""Plain commands: how their arguments are read, and what `vae-lab` makes of their help, mistakes and ends."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from vae_lab.cli import COMMANDS, main
from vae_lab.commands.help import WIDTH, Command
from vae_lab.errors import ConfigError, Failed, require_integer, require_number
from vae_lab.wiring.arguments import (
    key,
    keys_of,
    named_paths,
    quoted,
    read_arguments,
    with_brackets,
    with_one_list,
    with_texts,
)


@dataclass(frozen=True)
class ListSettings:
    runs: list[str] = key("run directories", [], is_path=True)
    where: list[str] = key("conditions such as model.latent_dim>=5", ["status=finished"])
    format: str = key("how it is written", "table", choices=("table", "csv"))
    title: str | None = key("a title", None)
    seed: int = key("seeds the bootstrap", 0)
    rate: float | None = key("a rate", None)

    def __post_init__(self) -> None:
        require_integer("seed", self.seed, minimum=0)
        require_number("rate", self.rate, optional=True)


@dataclass(frozen=True)
class LongListSettings(ListSettings):
    own: str | None = key("of this command alone", None)


def read(*arguments: str) -> ListSettings:
    return read_arguments("list", arguments, ListSettings)


def test_quoted_texts_are_left_alone_and_others_become_texts() -> None:
    quoted_texts = ["name='a,1,b'", 'data.path="b,1,c.npz"', "run_dir='1e3'"]
    assert with_texts(quoted_texts) == quoted_texts
    assert with_texts(["name=1e3", "root=true", "seed=1e3"]) == ["name='1e3'", "root='true'", "seed=1e3"]


def test_arguments_not_given_have_their_defaults() -> None:
    assert read() == ListSettings([], ["status=finished"], "table", None)
    read().where.append("changed")
    assert read().where == ["status=finished"]


def test_own_keys_come_before_those_of_several_commands() -> None:
    assert list(keys_of(LongListSettings)) == ["own", "runs", "where", "format", "title", "seed", "rate"]
    assert read_arguments("list", ["own=a", "runs=b"], LongListSettings) == LongListSettings(["b"], own="a")


def test_argument_is_cut_at_its_first_equals_sign() -> None:
    assert read("where=status=finished").where == ["status=finished"]
    assert read("title=a=b,c d").title == "a=b,c d"


def test_list_is_cut_at_commas_outside_of_brackets_and_repeated_keys_are_joined() -> None:
    assert read("where=a=1,b>=2", "where=c=3").where == ["a=1", "b>=2", "c=3"]
    assert read("where=hidden=[400,200],b=(1,2)").where == ["hidden=[400,200]", "b=(1,2)"]
    assert read("where=[a=1,b=2]").where == read("where=[a=1, b=2 ]").where == ["a=1", "b=2"]


def test_existing_path_is_taken_whole_whatever_signs_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a,b", "a[1", "x=1", "[c,d]", "ein Lauf é"):
        (tmp_path / name).mkdir()
        assert read(f"runs={name}").runs == [name]
    assert read("runs=a,b", "runs=x=1,a[1").runs == ["a,b", "x=1", "a[1"]
    assert read("runs=a,c").runs == ["a", "c"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("runs=~/a,b").runs == ["~/a,b"]


def test_a_path_alone_is_one_of_the_first_key_of_paths() -> None:
    assert read("outputs", "format=csv", "more/*").runs == ["outputs", "more/*"]


def test_quotation_marks_hold_a_value_together() -> None:
    assert read("runs='a,b',c,\"d'e\"").runs == ["a,b", "c", "d'e"]
    assert read("runs=['a,b',c]").runs == ["a,b", "c"]
    assert read(r"where='it\'s',a='b'").where == ["it's", "a='b'"]


TEXTS = [
    "a b",
    "a,b",
    r"C:\runs\x",
    "it's",
    "[c]",
    "a=b",
    "*?",
    "'",
    '"',
    "",
    "a[1-2]",
    "2024",
    "null",
    "a\\",
    "\\'b\\\\",
]


@pytest.mark.parametrize("text", TEXTS)
def test_quoted_text_is_the_same_to_hydra_and_to_this_grammar(text: str) -> None:
    parser = OverridesParser.create()
    assert parser.parse_override(f"run={quoted(text)}").value() == text
    assert parser.parse_override(f"run=[{quoted(text)},b]").value() == [text, "b"]
    if text:
        assert read(f"runs={quoted(text)},b").runs == [text, "b"]


@pytest.mark.parametrize(
    "typed", [["run=A,B"], ["run=[A,B]"], ["run=A", "run=B"], ["run='A',\"B\""], ["run=['A',B]"], ["seed=1", "run=A,B"]]
)
def test_paths_of_a_command_of_hydra_are_one_list_whatever_way_they_were_written(typed: list[str]) -> None:
    *others, paths = with_one_list(typed, "run")
    assert others == [text for text in typed if not text.startswith("run=")]
    assert OverridesParser.create().parse_override(paths).value() == ["A", "B"]


def test_a_reference_and_other_keys_are_left_to_hydra() -> None:
    for typed in (["run=${oc.env:HOME},b"], ["seed=1,2", "runs=a,b"], []):
        assert with_one_list(typed, "run") == typed
    with pytest.raises(ConfigError, match="run must not be empty"):
        with_one_list(["run=a,,b"], "run")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("only=a,b-2", "only=[a,b-2]"),
        ("only=a?b/ä,b*", "only=[a?b/ä,b*]"),
        ("only=[a,b]", "only=[a,b]"),
        ("only=a", "only=a"),
        ("only=${x},b", "only=${x},b"),
        ("only=choice(a,b)", "only=choice(a,b)"),
        ("seed=1,2", "seed=1,2"),
    ],
)
def test_several_values_of_a_key_that_takes_a_list_are_one(typed: str, meant: str) -> None:
    assert with_brackets([typed], "only".__eq__) == [meant]


def test_pattern_names_the_folders_that_it_matches_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a", "x[1]", "x1"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    paths = {name: Path(name) for name in ("a", "b", "x[1]", "x1", "none")}
    assert named_paths("run", ["b", "?", f"{tmp_path}/a"]) == {paths["b"]: False, paths["a"]: False}
    assert named_paths("run", ["x[1]"]) == {paths["x[1]"]: False}, "an existing path is no pattern"
    assert named_paths("run", ["x[0-9]"]) == {paths["x1"]: True}
    assert named_paths("run", ["none", "fil*"]) == {paths["none"]: False}, "a pattern is for folders"
    with pytest.raises(ConfigError, match=r"run=y\* matches nothing"):
        named_paths("run", ["a", "y*"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rnus=a"], ["rnus", "vae-lab list", "did you mean 'runs'?", "where"]),
        (["where"], ["'where'", "key=value", "runs", "vae-lab list --help"]),
        (["--format=csv"], ["'--format=csv'", "key=value"]),
        (["format=cvs"], ["format=cvs", "did you mean 'csv'?"]),
        (["format=csv", "format=table"], ["format takes one value", "csv and table"]),
        (["where="], ["where must not be empty", "give it a value, or leave it out"]),
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
    with pytest.raises(ConfigError, match=f"seed must be an integer >= 0, got '?{text}'?"):
        read(f"seed={text}")


def test_number_is_read_where_one_is_asked_for() -> None:
    arguments = read("seed=12", "rate=1e-3", "title=12")
    assert (arguments.seed, arguments.rate, arguments.title) == (12, 0.001, "12")
    with pytest.raises(ConfigError, match=r"rate must be a number > 0 or null, got nan"):
        read("rate=nan")


# ---- through the program ----


@pytest.fixture
def add_command(monkeypatch: pytest.MonkeyPatch):
    """Makes a function the plain command `list`."""

    def add(function) -> None:
        module = ModuleType("vae_lab.a_plain_command")
        vars(module).update({"list": function, "ListSettings": ListSettings})
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(COMMANDS, "list", Command("list things", "format=csv", plain="vae_lab.a_plain_command"))

    return add


def test_plain_command_prints_the_path_that_it_wrote_last(add_command, capsys: pytest.CaptureFixture[str]) -> None:
    def command(settings: ListSettings) -> Path:
        print(settings.format)
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
    assert "runs=a,b or runs=[a,b] or runs=a runs=b" in out
    assert max(map(len, out.splitlines())) <= WIDTH
    assert main(["--help"]) == 0
    assert "vae-lab list format=csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("a word"), 2), (Failed("a word"), 1), (PermissionError(13, "a word"), 2)]
)
def test_known_error_of_a_plain_command_is_one_message(
    error: Exception, code: int, add_command, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(settings: ListSettings) -> None:
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
