"""README and docs/ say what there is: commands and options that exist, links that lead somewhere, whole tables."""

import re
import shlex
from importlib.util import find_spec

import click
import pytest

from dlink.cli.main import STEPS
from tests.support.environments import ROOT
from tests.support.pages import (
    PAGES,
    SPAN,
    Block,
    blocks_of,
    check_line,
    command_lines,
    command_of,
    name_of,
    named_commands,
    options_of,
    prose_of,
)

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
LINES = [pytest.param(line, id=f"{b.place} {line[0]}") for b in BLOCKS for line in command_lines(b)]
OTHERS = {"docs/jetson.md", "examples/README.md"}  # pages that name options of other programs
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(?:#[^)]*)?\)")
MODULES = re.compile(r"python -m (dlink\.[\w.]+)")
PATHS = re.compile(r"(?:[\w-]+/)+[\w-]+\.(?:py|sh|jsonl|json|md)")
READABLE = 104  # characters of a line of code; a page of the site shows 94, and scrolls for the rest


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_is_one_that_its_command_takes(line):
    check_line(line)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("nothing", "there is no dlink-nothing"),
        ("export a.th b.onnx --precison fp16", "precison"),
        ("export a.th b.onnx --precision fp8", "fp8"),
        ("check roads.onnx tiles --tune", "tune"),  # an old spelling
        ("segment roads.onnx picture.jpg", "lacks out"),
        ("check roads.onnx", "lacks tiles"),
        ("check roads.onnx tiles more", "takes no"),
        ("scenes out --count few", "few"),
    ],
)
def test_a_line_that_a_command_would_refuse_is_found(line, error):
    with pytest.raises((AssertionError, click.UsageError), match=error):
        check_line(line.split())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_sentence_names_exists_with_its_options(page):
    for step, *words in named_commands(page):
        if step.startswith("<"):
            continue
        known = options_of(command_of(step))
        assert {word for word in words if word.startswith("-")} <= known, (step, words)


@pytest.mark.parametrize("page", [p for p in PAGES if name_of(p) not in OTHERS], ids=name_of)
def test_every_option_that_a_sentence_names_alone_is_some_commands(page):
    known = set().union(*(options_of(command_of(step)) for step in STEPS)) | {"--version"}
    said = {shlex.split(span)[0] for span in SPAN.findall(prose_of(page)) if span.startswith("-")}
    assert said <= known


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file(page):
    for target in LINK.findall(prose_of(page)):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_module_that_is_to_be_run_is_there(page):
    for module in MODULES.findall(page.read_text()):
        assert find_spec(module), module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_of_the_checkout_that_is_named_is_there(page):
    for span in SPAN.findall(prose_of(page)):
        if PATHS.fullmatch(span) and (ROOT / span.split("/")[0]).is_dir():
            assert (ROOT / span).exists(), span


def test_readmes_table_of_commands_has_every_step_in_order():
    assert re.findall(r"^\| `dlink-(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE) == list(STEPS)


def test_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().split()) < 900


def test_the_picture_is_small_enough_for_a_first_page():
    assert 10_000 < (ROOT / "docs" / "images" / "demo.jpg").stat().st_size <= 200_000


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("sh", "python")], ids=lambda b: b.place)
def test_lines_of_code_fit_a_page(block: Block):
    if name_of(block.page) not in OTHERS:  # trtexec's lines are long
        assert max(map(len, block.text.splitlines())) <= READABLE
