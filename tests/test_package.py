"""The public names, and that imports go down the layers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hfasr

PACKAGE = Path(hfasr.__file__).parent
LAYERS = {
    "cache": 0,
    "extras": 0,
    "files": 0,
    "paths": 0,
    "audio": 1,
    "errors": 1,
    "espeak": 1,
    "text": 2,
    "corpora": 3,
    "models": 3,
    "decoding": 4,
    "evaluation": 5,
    "training": 6,
    "inference": 6,
    "cli": 7,
}


@pytest.mark.parametrize("name", hfasr.__all__)
def test_every_public_name_loads(name):
    assert getattr(hfasr, name) is not None
    assert (getattr(hfasr, name).__doc__ or "").strip()


def test_an_unknown_name_is_told():
    with pytest.raises(AttributeError, match="public names are"):
        hfasr.nothing  # noqa: B018


def test_importing_costs_nothing():
    code = "import sys, hfasr; print([name for name in ('torch', 'transformers', 'datasets', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def imported(path: Path) -> set[str]:
    """Return the folders or modules of hfasr that a file imports from absolutely."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module] if node.module != "hfasr" else [f"hfasr.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("hfasr.")}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("**/*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_layers(path):
    home = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if home == "__init__":
        return
    for name in imported(path):
        assert LAYERS[name] < LAYERS[home] or name == home, f"{path} imports {name}"


def listed() -> list[str]:
    """Return the modules that docs/layout.md names, in its order; those it describes as a group are left out."""
    folders, found = [], []
    for line in (PACKAGE.parent / "docs" / "layout.md").read_text("utf-8").split("```")[1].splitlines():
        indent, entry = re.match(r"([│ ]*)(?:[├└]── )?(.*)", line).groups()
        if "── " in line:
            folders = folders[: len(indent) // 4]
            if folder := re.match(r"(\w+)/", entry):
                folders.append(folder[1])
        found += [".".join(["hfasr", *folders, name]) for name in re.findall(r"(?<![\w>])(\w+)\.py", entry.split("    ")[0])]
    return found


def test_files_import_what_the_layout_lists_above_them():
    places = {module: place for place, module in enumerate(listed())}
    assert "hfasr.training.batches.sampler" in places
    for module, place in places.items():
        folder = ".".join(module.split(".")[:2])
        for node in ast.walk(ast.parse((PACKAGE.parent / f"{module.replace('.', '/')}.py").read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level and node.module.startswith(f"{folder}."):
                assert places.get(node.module, -1) < place, f"{module} imports {node.module}"
