"""Libraries from outside that the lab is held against: they come with the extra `acceptance`."""

from importlib.util import find_spec

import pytest


def needs(module: str) -> pytest.MarkDecorator:
    """Skips where the library is not installed; nothing of it is imported to find out."""
    reason = f"{module} is not installed: pip install '.[acceptance]' brings it"
    return pytest.mark.skipif(find_spec(module) is None, reason=reason)
