"""metrics.csv: one row per evaluation, in the order of `samples_evaluated`; an absent value is an empty field."""

import csv
import io
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vae_lab.atomic import write_text
from vae_lab.errors import RunError, is_about_storage, no_room
from vae_lab.runs.small_files import read_text


def read_rows(path: Path) -> list[dict[str, float]]:
    """All rows, without their empty fields; [] where there is no file.

    Raises:
        RunError: the file is damaged.
    """
    return [{name: float(text) for name, text in row.items() if text} for row in _read(path)]


def series(rows: Sequence[Mapping[str, float]], key: str) -> tuple[list[float], list[float]]:
    """Samples evaluated and values of one column, where it was measured."""
    found = [row for row in rows if key in row]
    return [row["samples_evaluated"] for row in found], [row[key] for row in found]


def append_row(path: Path, row: Mapping[str, float | int], *, after: float | None = None) -> None:
    """Adds a row, on disk when this returns. A name that the file does not know yet becomes a new column.

    Args:
        path: the file.
        row: its values.
        after: the number of samples of the row before, which must still be there; None: whatever is there.

    Raises:
        RunError: rows have gone since.
        StorageError: there is no room.
    """
    rows = _read(path)
    if after is not None and (not rows or float(rows[-1]["samples_evaluated"]) != after):
        raise RunError(
            f"{path} was changed or deleted while the run was written: it ended at {after:,.0f} samples, and no longer "
            "does; put it back, and the same command goes on"
        )
    if not rows or not set(row) <= set(rows[0]):
        _write(path, [*rows, {name: str(value) for name, value in row.items()}])
        return
    try:
        with open(path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, list(rows[0]), lineterminator="\n").writerow(row)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if is_about_storage(error):
            raise no_room(path, error) from error
        raise


def keep_rows(path: Path, keep: Callable[[int], bool]) -> None:
    """Removes the rows whose number of samples `keep` refuses, and a last line that a kill cut short."""
    if path.is_file():
        _write(path, [row for row in _read(path) if keep(int(row["samples_evaluated"]))])


def _read(path: Path) -> list[dict[str, str]]:
    if not os.path.lexists(path):
        return []
    try:
        text = read_text(path.parent, path.name)
        rows = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
        for row in rows:
            _ = int(row["samples_evaluated"]), [float(text) for text in row.values() if text]
    except (ValueError, TypeError, LookupError, csv.Error) as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        raise RunError(
            f"{path} must have a column samples_evaluated and numbers below it, and is damaged ({reason}): restore it, "
            "or take it away, and the run goes on without its past rows"
        ) from error
    return rows


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue(), new_folder=False)
