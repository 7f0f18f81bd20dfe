"""The site of docs/: Sphinx makes it without a warning, it has every command and name, and it fetches nothing."""

import re
import subprocess
import sys

import pytest

from dlink import runtime
from dlink.cli.main import STEPS
from tests.support.environments import ROOT
from tests.support.pages import PAGES, name_of

pytestmark = pytest.mark.slow

FETCHED = re.compile(r'<(?:script|img|link|iframe)[^>]*(?:src|href)="(?:https?:)?//')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "-d", folder / "read", ROOT / "docs"]
    done = subprocess.run([*command, folder / "html"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


def test_every_page_is_in_the_site(site):
    pages = [name_of(page) for page in PAGES if (ROOT / "docs") in page.parents]
    assert [page for page in pages if not (site / page.removeprefix("docs/")).with_suffix(".html").exists()] == []


def test_every_command_is_described_in_the_order_of_the_work(site):
    text = (site / "reference" / "commands.html").read_text()
    assert re.findall(r'<section id="dlink-(\w+)">', text) == list(STEPS)


def test_every_name_of_the_runtime_is_described(site):
    text = (site / "reference" / "api.html").read_text()
    assert [name for name in runtime.__all__ if f'id="dlink.runtime.{name}"' not in text] == []


def test_what_the_site_shows_comes_with_it(site):
    assert {page.name: found for page in site.rglob("*.html") if (found := FETCHED.findall(page.read_text()))} == {}


def test_links_to_files_outside_of_docs_lead_to_the_page_that_shows_them(site):
    text = (site / "guides" / "int8.html").read_text()
    assert 'href="../project/peers.html"' in text
    assert 'href="../project/training.html#int8-fine-tuning"' in text
