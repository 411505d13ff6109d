"""What was typed and what was meant: the words of a command line held against the keys of its YAML files.

All mistakes that can be seen without composing the config are found here, before Hydra is imported, and named together.
"""

import difflib
import glob
import os
from collections.abc import Iterable, Iterator, Sequence

from vae_lab.errors import ConfigError, nearest
from vae_lab.runs.directory import RunDir
from vae_lab.wiring.arguments import override
from vae_lab.wiring.dotted import parents_of
from vae_lab.wiring.folders import CommandLine, choices
from vae_lab.wiring.keys import NAMES, CommandKeys, keys_in

SYNONYMS = {
    **dict.fromkeys(("learning_rate", "step_size", "alpha"), "optimizer.lr"),
    **dict.fromkeys(("z_dim", "nz", "n_z", "latent_size", "latents"), "model.latent_dim"),
    **dict.fromkeys(("dataset", "data_set"), "data"),
    **dict.fromkeys(("network", "arch", "architecture"), "model"),
    **dict.fromkeys(("num_epochs", "n_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("steps", "num_steps", "iterations", "budget"), "max_samples"),
    **dict.fromkeys(("out", "output", "output_dir", "out_dir", "log_dir", "logdir", "save_dir"), "output_root"),
    **dict.fromkeys(("gpu", "gpus", "cuda", "device"), "trainer"),
    **dict.fromkeys(("resume", "checkpoint_path"), "run_dir"),
    **dict.fromkeys(("random_seed", "manual_seed"), "seed"),
    **dict.fromkeys(("num_workers", "workers", "num_threads", "n_jobs"), "threads"),
}
"""What other programs call things -> the key or group here."""
RUN = "run"
"""The key of the commands that read run directories: a path without a key is its."""


def understood(line: CommandLine, keys: CommandKeys, arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The overrides of a command line; a path that has no key is a run directory, where the command takes some.

    Args:
        line: the command, with the words that are no flags.
        keys: of the command.
        arguments: all words in their order.
        flags: those among them that begin with a hyphen and are none of the command's flags.

    Raises:
        ConfigError: naming all that were not understood.
    """
    own = tuple(word.partition("_target_=")[0].lstrip("+") for word in line.overrides if "._target_=" in word)
    elsewhere = ("hydra.searchpath", "run_dir=")  # folders of one's own, and a run's own config, have further keys
    is_whole = not keys.folders[1:] and not any(word.startswith(elsewhere) for word in line.overrides)
    meant: list[str] = []
    wrong: list[str] = []
    words = list(line.overrides)
    for flag in dict.fromkeys(flags):
        place = arguments.index(flag) + 1
        values = [word for word in arguments[place : place + 1] if word in words and "=" not in flag + word]
        for value in values:
            words.remove(value)
        wrong.append(_flag(flag, *values, keys=keys))
    for word in words:
        if "=" in word or word.startswith("~"):
            meant.append(word)
            if is_whole and not word.startswith(own):  # what is of one's own may have keys that Hydra alone knows
                wrong += _mistakes(word, keys)
        elif RUN in keys.keys and _is_path(word):
            meant.append(override(RUN, word))
        else:
            wrong.append(_bare_word(word, line, keys))
    if wrong:
        several = f"{len(wrong)} arguments were not understood:\n  "
        raise ConfigError((several if len(wrong) > 1 else "") + "\n  ".join(wrong))
    return meant


def _is_path(word: str) -> bool:
    return word == "latest" or "/" in word or glob.has_magic(word) or os.path.exists(word)


def _mistakes(word: str, keys: CommandKeys) -> Iterator[str]:
    """What is wrong with an override: a choice that its group has not, or a key that is nowhere."""
    key, _, value = word.partition("=")
    if key in keys.groups:
        names = choices(keys.folders, key)
        for choice in value.split(",") if NAMES.fullmatch(value) and key in keys.chosen else ():
            if choice not in ("", "null", *names):
                yield no_choice(key, choice, names)
    elif not key or key.startswith(("+", "~", "hydra.", "hydra/")) or "@" in key:  # Hydra's to judge
        return
    elif key not in keys.keys and not keys.decides_elsewhere(key):
        yield unknown_key(word, keys)


def no_choice(group: str, choice: str, names: Iterable[str], where: str = "") -> str:
    """The message about a choice that a group has not."""
    return f"{group}={choice}{where} is no choice of {group}: {nearest(choice, names)}"


def unknown_key(word: str, keys: CommandKeys) -> str:
    """The message about an override whose key is not in the config: what is likely, else what is beside it."""
    key, sign, value = word.partition("=")
    if close := likely(key, keys):
        guess = f"did you mean {' or '.join(f'{name}{sign}{value}' for name in close)}? "
    elif elsewhere := list(_elsewhere(key, keys)):
        guess = f"it belongs to {' or '.join(elsewhere)}; "
    else:
        guess = ""
    parent = next((above for above in parents_of(key) if above in keys.keys), "")
    siblings = [name.rpartition(".")[2] for name in (*keys.keys, *keys.chosen) if name.rpartition(".")[0] == parent]
    listing = f"{parent or 'the config'} has {', '.join(dict.fromkeys(siblings)) or 'no keys of its own'}; "
    if guess and not parent:
        listing = ""  # too many to help
    return f"{word} is no key of the config: {guess}{listing}to add a key of your own write +{key}=VALUE"


def likely(key: str, keys: CommandKeys) -> list[str]:
    """The keys and groups that may be meant by a name, at most three."""
    known = [*keys.keys, *keys.chosen]
    leaf = key.rpartition(".")[2].replace("-", "_")
    synonym = SYNONYMS.get(leaf)
    found = [synonym] if synonym in known else []
    found = found or [name for name in known if name.rpartition(".")[2] == leaf]
    found = found or difflib.get_close_matches(key, known, n=2, cutoff=0.7)
    found = found or [name for name in known if leaf in name.rpartition(".")[2].split("_")]
    if not found and len(leaf) > 1:
        alike = difflib.get_close_matches(leaf, [name.rpartition(".")[2] for name in known], n=1, cutoff=0.7)
        found = [name for name in known if name.rpartition(".")[2] in alike]
    return list(dict.fromkeys(sorted(found, key=lambda name: name.count("."))))[:3]


def _elsewhere(key: str, keys: CommandKeys) -> Iterator[str]:
    """The choices whose files have the key."""
    group = key.partition(".")[0]
    for choice, file in choices(keys.folders, group).items() if group in keys.chosen else ():
        if key in keys_in(file, f"{group}."):
            yield f"{group}={choice}"


def _flag(flag: str, value: str = "VALUE", *, keys: CommandKeys) -> str:
    name, _, own = flag.lstrip("-").partition("=")
    name, value = name.replace("-", "_"), own or value
    meant = [name] if name in keys.keys or name in keys.chosen else likely(name, keys)
    example = " or ".join(f"{key}={value}" for key in meant) if meant else f"{name}={value}"
    return f"{flag} is not a flag: options are written key=value, here {example}"


def _bare_word(word: str, line: CommandLine, keys: CommandKeys) -> str:
    if set(word) & set("[]{}()'\""):
        return f"{word!r} is a piece of a value: a shell cuts words at spaces; write a list as key=[1,2] without any"
    first = sorted(keys.chosen, key=lambda group: group != "experiment")
    named = {group: choices(keys.folders, group) for group in first}
    if found := [f"{group}={word}" for group, names in named.items() if word in names]:
        return f"{word} is ambiguous: write {' or '.join(found)}"
    if word in keys.keys or word in keys.chosen:
        value = "CHOICE" if word in keys.chosen else "VALUE"
        return f"{word!r} has no value: options are written key=value, here {word}={value}"
    if line.command == "train" and RunDir(word).exists():
        return f"{word} is a run directory: {override('run_dir', word)} goes on with it"
    close = difflib.get_close_matches(word, {name for names in named.values() for name in names}, n=1)
    likely_choice = [f"{group}={close[0]}" for group, names in named.items() if close and close[0] in names]
    meant = likely_choice or [f"{key}=VALUE" for key in likely(word, keys)]
    if RUN in keys.keys:
        meant = [*meant, f"run={word}"]
    guess = f": did you mean {' or '.join(meant)}?" if meant else ""
    return f"{word!r} is no option, which are written key=value{guess}; vae-lab {line.command} --help shows them"
