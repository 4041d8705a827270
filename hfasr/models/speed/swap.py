"""Attributes of modules that are others for a while."""

from collections.abc import Callable
from functools import partial


def swap(owner: object, name: str, value: object) -> Callable[[], None]:
    """Give an object an attribute of its own, and return what puts back what was there."""
    own = name == "__class__" or name in vars(owner)
    undo = partial(setattr, owner, name, getattr(owner, name)) if own else partial(delattr, owner, name)
    setattr(owner, name, value)
    return undo
