"""What checks shapes and types in the tests: beartype, to which an integer is a float, as to pyright.

A check takes longer than a step of a small model, so a function is checked once for each kind of arguments.
"""

import inspect
import weakref
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
jaxtyped = jaxtyping.jaxtyped


def jaxtyped_once(*, typechecker: Any) -> Callable[[Any], Any]:
    """Like jaxtyping's decorator, which the import hook writes before every class and function."""

    def decorate(function: Any) -> Any:
        checked = jaxtyped(typechecker=typechecker)(function)
        if not inspect.isfunction(function):
            return checked
        known = set()

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            try:
                kinds = kind((args, kwargs))
            except Unknown:
                return checked(*args, **kwargs)
            if kinds in known:
                return function(*args, **kwargs)
            result = checked(*args, **kwargs)
            known.add(kinds)
            return result

        return called

    return decorate


class Unknown(Exception):  # noqa: N818 - no error
    """What a check depends on cannot be told, as where a program is traced for sizes that may differ."""


def kind(value: Any) -> Hashable:
    """Types, and the shapes of tensors, in a value; models and the objects of other libraries are their own kind.

    Functions are known by their code, whatever they have captured.
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        if not all(type(size) is int for size in shape):
            raise Unknown
        return type(value), shape, getattr(value, "dtype", None)
    if isinstance(value, tuple | list):
        return type(value), *map(kind, value)
    if isinstance(value, dict):
        return tuple((key, kind(item)) for key, item in value.items())
    if value is None or isinstance(value, int | str | float):
        return type(value), None if isinstance(value, float) else value
    if inspect.isfunction(value):
        return inspect.unwrap(value).__code__
    if type(value).__module__.startswith("vae_lab") and not hasattr(value, "parameters"):
        return type(value), kind(vars(value))
    try:
        return hash(value), weakref.ref(value)  # which equals no other object that comes to lie at its place
    except TypeError as error:
        raise Unknown from error
