"""The pages on the papers name files, functions and settings that are there, and every equation."""

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

from models import registry
from models.training.config import TrainingConfig

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted((REPOSITORY / "docs/papers").glob("*.md"))
NUMBERED = {"mealrec": range(1, 17), "imecd": range(1, 23), "dimerec": range(1, 24)}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def quoted(text):
    return re.findall(r"`([^`\n]+)`", text)


def tables(text):
    """Every table as its rows of cells, the line below the header left out."""
    blocks = re.findall(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]


def places(text):
    """(file, its names) for ``file``: ``name``, ``name``; a name with a dot in front belongs to the class before it."""
    for path, names in re.findall(r"`([\w/]+\.py)`((?:(?::|,| and| with)? *`\.?[A-Za-z_][\w.]*`)*)", text):
        owner, found = "", []
        for name in re.findall(r"`([^`]+)`", names):
            if name.startswith("."):
                found.append(owner + name)
            elif "/" not in name:
                found.append(name)
                owner = name.split(".")[0]
        yield path, found


def test_there_is_a_page_for_each_paper():
    assert {page.stem for page in PAGES} == set(NUMBERED) <= set(registry.names())


@every_page
def test_every_file_is_there(page):
    paths = [name for name in quoted(page.read_text()) if re.fullmatch(r"[\w./-]+/[\w.-]+\.(py|toml|md)", name)]
    assert len(paths) > 10
    assert [path for path in paths if not (REPOSITORY / path).is_file()] == []


@every_page
def test_every_name_behind_a_file_is_in_it(page):
    named = [(path, name) for path, names in places(page.read_text()) for name in names]
    assert len(named) > 10
    for path, name in named:
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        assert reduce(lambda owner, part: getattr(owner, part, None), name.split("."), module), f"{name} in {path}"


@every_page
def test_every_method_without_a_file_is_one_of_a_class_of_the_page(page):
    text = page.read_text()
    modules = [importlib.import_module(path.removesuffix(".py").replace("/", ".")) for path, _ in places(text)]
    modules.append(registry.load(page.stem))
    for name in quoted(text):
        if re.fullmatch(r"[A-Z]\w+\.\w+", name):
            owner, method = name.split(".")
            assert any(hasattr(getattr(module, owner, None), method) for module in modules), name


@every_page
def test_every_setting_is_one(page):
    fields = registry.load(page.stem).Config.model_fields | TrainingConfig.model_fields
    settings = [match[1] for name in quoted(page.read_text()) if (match := re.fullmatch(r"(\w+) ?= ?[\w.\"]+", name))]
    assert settings
    assert {setting for setting in settings if setting not in fields} == set()


@every_page
def test_every_equation_has_its_place(page):
    first = next(table for table in tables(page.read_text()) if "equation" in table[0] or "paper" in table[0])
    found = set()
    for cell, *_, where in first[2:]:
        if re.match(r"eq\.|\d", cell):
            assert re.search(r"`|eq\.", where), cell
            for low, high in re.findall(r"(\d+)(?:-(\d+))?", cell):
                found |= set(range(int(low), int(high or low) + 1))
    assert found == set(NUMBERED[page.stem])


@every_page
def test_every_row_has_a_cell_in_every_column(page):
    for table in tables(page.read_text()):
        assert {len(row) for row in table} == {len(table[0])}, table[0]
