"""How Sphinx makes the site of docs/: `make docs`. A warning is an error, and so is a reference that leads nowhere."""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from dlink import __version__
from dlink.cli.main import STEPS

OPTION = re.compile(r"(?<![\w`-])--[a-z][\w-]*(?:=[\w.,]*\w| [A-Z]+\b)?")
ROOT = Path(__file__).parents[1]
ARRAY = re.compile(
    r"~?(?:numpy\.)?ndarray\[tuple\[~?(?:typing\.)?Any, \.\.\.\], ~?(?:numpy\.)?dtype\[((?:[^][]|\[.*?\])*)\]\]"
)

project, author, release = "dlink", "the authors of dlink", __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
nitpicky = True
nitpick_ignore_regex = [  # what other projects document: their inventories would need a network
    ("py:.*", r"(collections|concurrent|contextlib|np|numpy|os|pathlib|typing|types)\..*"),
    ("py:.*", "ArrayLike|NDArray|Path|PathLike|Any|Callable|Iterator|Literal|Mapping|Sequence|optional"),
]

default_role = "code"  # a word in single backticks, in docstrings and the commands' help

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_mock_imports = ["pycuda"]  # there are no wheels of it
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
maximum_signature_line_length = 90

html_theme = "furo"
html_title = "dlink"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = html_show_sphinx = False
templates_path: list[str] = []

SHOWN = re.compile(r"^<!-- the site shows here: (\S+) -->$", re.MULTILINE)

# Files elsewhere in the repository, and the pages that show them.
PAGES = {
    "CHANGELOG.md": "project/changelog",
    "DESIGN.md": "project/design",
    "SECURITY.md": "contributing",
    "bench/gpu/README.md": "project/gpu",
    "bench/peers.md": "project/peers",
    "nets/weights/README.md": "project/weights",
    "training/README.md": "project/training",
}


def contents(file: Path) -> str:
    """A file at the top of the checkout, for a page directly in docs/: a level lower, its links from there."""
    if not file.exists():
        return ""
    parts = re.split("(^```.*?^```$)", file.read_text(), flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [re.sub("^#", "##", part, flags=re.MULTILINE) for part in parts[::2]]
    return re.sub(r"\]\((?![\w+]+:|#)", "](../", "".join(parts))


def fill_in(app: Sphinx, page: str, text: list[str]) -> None:
    """Links to a file of PAGES lead to the file in a checkout, and to the page that shows it in the site."""
    up = "../" * page.count("/")
    text[0] = SHOWN.sub(lambda found: contents(ROOT / found[1]), text[0])
    for file, shown in PAGES.items():
        text[0] = re.sub(rf"\]\((?:\.\./)+{re.escape(file)}(#[\w-]+)?\)", rf"]({up}{shown}.md\1)", text[0])
    text[0] = text[0].replace("(the steps in order)", ", ".join(STEPS))


def shorten_arrays(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, args: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Types as the code has them: NumPy spells out what NDArray[np.uint8] stands for."""
    if args is None:
        return None
    return ARRAY.sub(r"NDArray[\1]", args), ARRAY.sub(r"NDArray[\1]", returns) if returns else None


def set_options_in_code(app: Sphinx, context: Any, lines: list[str]) -> None:
    """Options that a command's help names; left as text, their two dashes become one."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((".. ", "::")):
            lines[i] = OPTION.sub(r"``\g<0>``", line)


def find_by_its_name(app: Sphinx, env: Any, node: Any, text: Any) -> Any:
    """A class that a docstring names alone, such as BadInput, wherever in dlink it is documented."""
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    found = {name for name in domain.objects if name.endswith("." + node["reftarget"])}
    if len(found) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], found.pop(), node, text)


def setup(app: Sphinx) -> None:
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-signature", shorten_arrays)
    for part in ("description", "options"):
        app.connect(f"sphinx-click-process-{part}", set_options_in_code)
    app.connect("missing-reference", find_by_its_name)
