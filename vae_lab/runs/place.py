"""Where a run's data lie: the one rule by which all that read a run find them, though they or the run may have moved.

config.yaml keeps the place as it was typed; run.json has beside it, in `data_place`, the whole path that this was.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from vae_lab.errors import ConfigError
from vae_lab.runs.identity import PLACES, Kind, keys_of
from vae_lab.wiring.arguments import unquoted
from vae_lab.wiring.dotted import value_at


def place_key(config: Mapping[str, Any]) -> str | None:
    """The key of a config that says where its data lie; None: nowhere, as the digits."""
    return next((key for key in PLACES if isinstance(value_at(config, key), str)), None)


def with_any_place(overrides: Sequence[str]) -> list[str]:
    """A command line for Hydra in which the place of the data of a run that goes on is a key of every data set."""
    run_dir = next((text.partition("=")[2] for text in overrides if text.startswith("run_dir=")), "")
    if not os.path.isfile(os.path.join(os.path.expanduser(unquoted(run_dir)), "run.json")):
        return list(overrides)
    places = (*keys_of(Kind.PLACE), *keys_of(Kind.OWN_DATA))
    return [f"++{text}" if text.partition("=")[0] in places else text for text in overrides]


def require_place(config: Mapping[str, Any], key: str, given: object, run: object) -> None:
    """Refuses a place for data that have none, or one under the key of another kind of data.

    Args:
        config: of the run.
        key: of the command; `data_root` is the place of any kind of data.
        given: its value.
        run: the path of the run, for the message.
    """
    own = place_key(config)
    if own is None:
        name = str(value_at(config, "data._target_")).rpartition(".")[2]
        raise ConfigError(f"{key} must be left out for {run}, got {given!r}: its data set, {name}, lies in no place")
    if key not in ("data_root", own) and not isinstance(value_at(config, key), str):
        raise ConfigError(f"{key} must be left out for {run}, got {given!r}: the place of its data is {own}")


def places_of(config: Mapping[str, Any], record: Mapping[str, Any], given: str | None = None) -> dict[str, str]:
    """The places where the data of a run may lie, as they are read -> whole; the one to take comes first.

    That is the place that is given now; else what config.yaml says where it is there, seen from the working folder;
    else what that was when it was typed.
    """
    key = place_key(config)
    typed = value_at(config, key) if key else None
    asked = typed if given is None else given
    if not asked:  # which the data set refuses
        return {}
    places = {asked: os.path.abspath(os.path.expanduser(asked))}
    recorded = record.get("data_place", {}).get(typed) if given is None else None
    if recorded not in (None, places[asked]):
        first = (asked, recorded) if os.path.exists(places[asked]) else (recorded, asked)
        places = {place: places.get(place, place) for place in first}
    return places


def places_of_test(config: Mapping[str, Any], record: Mapping[str, Any], place: str) -> list[str]:
    """Where the test pictures of a run that has such a key may lie, whole; the one to take comes first.

    That is where they were if they are there; else as they lay beside the others, which are at `place` now.
    """
    typed, others = value_at(config, "data.test_path"), value_at(config, "data.path")
    if not isinstance(typed, str):
        return []
    known = record.get("data_place", {})
    before = next((whole for path, whole in known.items() if path != typed), others)  # others may be another place now
    was, before = (os.path.abspath(os.path.expanduser(path)) for path in (known.get(typed, typed), before))
    moved = os.path.normpath(os.path.join(place, os.path.relpath(was, before)))
    return list(dict.fromkeys((was, moved) if os.path.exists(was) else (moved, was)))


def placed(config: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of run.json about the place of the data, found from this working folder."""
    places = places_of(config, record)
    if not places:
        return {}
    place = next(iter(places.values()))
    tests = places_of_test(config, record, place)
    of_tests = {value_at(config, "data.test_path"): tests[0]} if tests else {}
    return {"data_place": {value_at(config, str(place_key(config))): place, **of_tests}}
