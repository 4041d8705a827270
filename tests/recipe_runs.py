"""Recipes run from Python, with the flags of a command line."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from hfasr.training.run import run_recipe

REPOSITORY = Path(__file__).parents[1]


def load_recipe(name: str):
    """Return a recipe's module, made anew."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "recipes" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *flags: str | Path, main: Callable | None = None) -> None:
    """Run a recipe, or another function in place of its steps."""
    recipe = load_recipe(name)
    recipe_class = getattr(recipe, name.title().replace("_", ""))
    run_recipe(main or recipe.main, recipe_class, recipe.presets, [*map(str, flags)])


def parsed(name: str, *flags: str | Path):
    """Return the numbers that a recipe would run with."""
    seen = []
    run(name, "--use_cpu", *flags, main=seen.append)
    return seen[0]
