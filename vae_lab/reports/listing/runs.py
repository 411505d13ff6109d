"""Runs as one table of values by key: full and short names, conditions, and the settings in which the runs differ."""

import operator
import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, cast

import pandas as pd

from vae_lab.errors import ConfigError, nearest
from vae_lab.reports.listing.measured import aliases
from vae_lab.reports.overview import Overview
from vae_lab.reports.values import ABSENT, as_text, is_number
from vae_lab.runs.identity import is_computed

CONDITION = re.compile(r"([^=<>!]+)(>=|<=|!=|=|<|>)(.*)", re.DOTALL)
COMPARE = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
FIRST = ("data", "model", "objective", "latent_dim", "lr")
"""What tells runs apart, most important first; then everything else, the seed last."""

KINDS = ("data", "model", "objective", "optimizer", "likelihood")
"""Settings whose values say what they are."""


class Runs:
    """The runs, and one DataFrame with a row for each and a column for every key of theirs.

    Args:
        runs: in their order.
    """

    def __init__(self, runs: Sequence[Overview]) -> None:
        self.runs = list(runs)
        self.frame = pd.DataFrame([run.values for run in runs], dtype=object)
        """The values; NaN where a run does not have the key, None where its config says null."""

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Further names that some keys go by."""
        return aliases(self.runs)

    @cached_property
    def texts(self) -> pd.DataFrame:
        """The values as text."""
        return texts_of(self.frame)

    @cached_property
    def settings(self) -> list[str]:
        """The keys of all configs."""
        return list(dict.fromkeys(key for run in self.runs for key in run.settings))

    @cached_property
    def varied(self) -> list[str]:
        """The settings that do not have the same text in every run, whether they matter or not."""
        texts: Any = self.texts
        return [key for key in self.settings if texts[key].nunique() > 1]

    @property
    def finished(self) -> "Runs":
        """Those that are finished."""
        return Runs([run for run in self.runs if run.is_finished])

    def that_have(self, conditions: Sequence[str]) -> "Runs":
        """Those of which all conditions hold, each held against all runs.

        Raises:
            ConfigError: one has no sign, or names no key of the runs.
        """
        if not self.runs or not conditions:
            return self
        rows = zip(self.runs, *map(self.where, conditions), strict=True)
        return Runs([run for run, *holds in rows if all(holds)])

    def resolve(self, name: str, option: str) -> str:
        """The full name of a key that `option` names, by itself or by the end of it.

        Raises:
            ConfigError: there is none, or several that disagree.
        """
        name = self.aliases.get(name, name)
        if name in self.frame:
            return name
        found = self._ending_in(name)
        if not found:
            known = [*self.frame, *self._by_last, *self.aliases]
            raise ConfigError(f"{option}: {name} is no key of the runs: {nearest(name, known)}")
        if not self._agree(found):
            raise ConfigError(f"{option}: {name} may be {' or '.join(found)}, which differ: write one of these")
        return found[0]

    def short(self, key: str) -> str:
        """The shortest end of the key that `resolve` takes for it, or for one that has the same values in every run."""
        names = key.split(".")
        if names[-1] == "name":  # which says nothing by itself
            return key
        for i in range(len(names) - 1, 0, -1):
            name = ".".join(names[i:])
            if self._agree([key, *self._ending_in(name), *([name] if name in self.frame else [])]):
                return name
        return key

    def where(self, text: str) -> Any:
        """Tells of which runs a condition holds; where a run lacks the key, only `!=` and `=null` do.

        Raises:
            ConfigError: it has no sign, or names no key of the runs.
        """
        found = CONDITION.fullmatch(text)
        if found is None:
            raise ConfigError(
                "where must be a condition such as status=finished, model.latent_dim>=5 or optimizer.lr!=0.01, "
                f"got {text!r}"
            )
        name, sign, typed = (piece.strip() for piece in found.groups())
        key = self.resolve(name, f"where={text}")
        column, number = self.frame[key], _as_number(typed)
        if sign in ("=", "!="):
            return column.map(lambda value: _is_equal(value, typed, number)) == (sign == "=")
        numbers = column.map(is_number).astype(bool)
        if number is None:
            holds = COMPARE[sign](self.texts.loc[~numbers & column.notna(), key], typed)
        else:
            holds = COMPARE[sign](column[numbers].astype(float), number)
        return cast(pd.Series, holds).reindex(column.index, fill_value=False)

    def text(self, key: str) -> list[str]:
        """A setting in every run as a cell: of a class its name; empty where there is none."""
        texts = self.texts[key] if key in self.frame else [""] * len(self.runs)
        is_class = key.endswith("._target_")
        return ["" if text == ABSENT else text.rpartition(".")[2] if is_class else text for text in texts]

    def matters(self, key: str) -> bool:
        """Whether a setting changes what one of the runs computes."""
        return any(is_computed(key, run.settings) for run in self.runs)

    def differing(self) -> dict[str, str]:
        """The settings that matter in which the runs differ -> the short name.

        The name of a component stands for its class; a setting that is there, or has its value, because of the class of
        its component is not mentioned. What has the same name and the same values (the widths of encoder and decoder)
        comes once. What says most about a run comes first, the seed last; runs that do not differ compute the same.
        """
        found: list[str] = []
        for key in filter(self.matters, self.varied):
            if key.endswith("._target_"):
                component = key.split(".")[0]
                key = component if component in self.texts and len(set(self.texts[component])) > 1 else key
            elif not self._differs_within_its_component(key):
                continue
            alike = (known for known in found if _last(known) == _last(key))
            if not any(self.texts[key].equals(self.texts[known]) for known in alike):
                found.append(key)
        shorts = {key: self.short(key) for key in found}
        places = {name: i for i, name in enumerate(FIRST)} | {"seed": len(shorts) + len(FIRST)}
        return dict(sorted(shorts.items(), key=lambda item: places.get(item[1], len(FIRST))))

    def differ_within(self, groups: list[Any], key: str) -> bool:
        """Whether two runs of one group differ in a setting; `groups` names that of each run, or is several such."""
        return bool((self.texts[key].groupby(groups).nunique() > 1).any())

    def names(self, most: int | None = None, without: Collection[str] = ()) -> list[str]:
        """What tells each run from the others in words, as `conv, latent_dim 10, seed 2`; in `most` words at most."""
        columns = [(name, list(self.texts[key])) for key, name in self.differing().items() if name not in without]
        if most is not None and len(columns) > most:
            columns = [*columns[: most - 1], columns[-1]]
        return [
            ", ".join(texts[i] if name in KINDS else f"{name} {texts[i]}" for name, texts in columns)
            for i in range(len(self.runs))
        ]

    @cached_property
    def _by_last(self) -> dict[str, list[str]]:
        """The last name of a key -> the keys."""
        found: dict[str, list[str]] = {}
        for key in self.frame:
            found.setdefault(_last(str(key)), []).append(str(key))
        return found

    def _ending_in(self, name: str) -> list[str]:
        return [key for key in self._by_last.get(_last(name), []) if key.endswith(f".{name}")]

    def _agree(self, keys: Sequence[str]) -> bool:
        return all(self.texts[key].equals(self.texts[keys[0]]) for key in keys[1:])

    def _differs_within_its_component(self, key: str) -> bool:
        """Whether two runs differ in it whose components around it have the same classes."""
        names = key.split(".")
        around = [f"{'.'.join(names[:i])}._target_" for i in range(1, len(names))]
        classes = [self.texts[name] for name in around if name in self.varied]
        return not classes or self.differ_within(classes, key)


def texts_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Every value as text, as objects: pandas' own columns of text take no name that UTF-8 cannot write."""
    texts = {key: pd.Series(list(map(as_text, values)), frame.index, dtype=object) for key, values in frame.items()}
    return pd.DataFrame(texts, frame.index)


def title_of(short: str) -> str:
    """A short key as a heading: a class goes by the name of its component."""
    return short.removesuffix("._target_")


def _is_equal(value: Any, typed: str, number: float | None) -> bool:
    """Whether a value is what was typed: 0.001 is 1e-3."""
    if is_number(value) and number is not None:
        return float(value) == number
    text = as_text(value)
    return ("null" if text == ABSENT else text) == (typed.replace(" ", "") if isinstance(value, list) else typed)


def _as_number(text: str) -> float | None:
    """The number that a text is; None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def _last(key: str) -> str:
    return key.rpartition(".")[2]
