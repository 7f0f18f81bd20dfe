import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest

from dlink.accuracy.agreement import Agreement, Each, Setting
from dlink.accuracy.bootstrap import Estimate
from dlink.accuracy.gates import GateLimits, Verdict
from dlink.accuracy.iou import IoU
from dlink.accuracy.report.evidence import Evidence
from dlink.accuracy.report.page import MOST_BYTES, About, page, write_report
from dlink.accuracy.roads import Roads
from dlink.runtime import BadInput
from tests.support.browser import Browser

EVIL = "</script><script>document.title='evil'</script>\"'><img src=x onerror=alert(1)>"
ABOUT = About(
    model=EVIL,
    reference="roads.th",
    tiles="valid & more",
    facts={EVIL: EVIL},
    layers=[{"name": EVIL, "type": "Conv", "share": 0.25, "precision": "int8", "why": ""} for _ in range(20)],
    latency=[{"views": 1, "p50_ms": 64.25, "tiles_per_s": 15.5}, {"views": 8, "p50_ms": 512.0, EVIL: 1.0}],
)
PHONE, DESKTOP = (390, 844), (1440, 900)


def tile(i, side):
    """An image, its label, and probabilities of both models: a bar of road that the candidate has a pixel lower."""
    rng = np.random.default_rng(i)
    image = rng.integers(0, 255, (side, side, 3), np.uint8)
    label = np.zeros((side, side), bool)
    label[side // 4 : side // 2] = True
    prob = (np.where(label, 0.7, 0.2) + rng.normal(0, 0.1, label.shape)).clip(0, 1).astype(np.float32)
    return image, label, np.roll(prob, 1 + i % 3, axis=0), prob


def checked(tiles, side=64, labelled=True, id="tile {}"):
    """A verdict and its evidence, as a check of so many tiles makes them."""
    evidence, each = Evidence(), []
    for i in range(tiles):
        image, label, *probs = tile(i, side)
        name = id.format(i)
        each.append(Each(name, 0.9 - i / tiles / 10, 0.5 + i / tiles / 3, 0.6) if labelled else Each(name, 0.9))
        evidence.add(each[-1], image, label if labelled else None, [(p, 0.45) for p in probs])
    roads = Roads(precision=0.8, recall=0.7, f1=0.75, apls=0.6, broken_per_km=1.5, bridged_per_km=0.25, km=12.0)
    setting = Setting(
        views=8,
        agreement=0.995,
        worst=0.8,
        worst_tile=id.format(0),
        max_difference=0.25,
        candidate=IoU(0.7, 0.69) if labelled else None,
        reference=IoU(0.702, 0.7) if labelled else None,
        candidate_roads=roads if labelled else None,
        reference_roads=roads if labelled else None,
        estimates={"agreement": Estimate(0.995, 0.98, 1.0, tiles), "iou": Estimate(0.002, -0.004, 0.012, tiles)},
        each=tuple(each),
    )
    found = Agreement(tiles, tiles if labelled else 0, 1000 if labelled else 0, (setting, replace(setting, views=1)))
    return Verdict(found, GateLimits(0.005, 0.99)), evidence


def text_of(tiles, **how):
    return page(*checked(tiles, **how), ABOUT)


class Reader(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_nothing_is_loaded_from_elsewhere():
    text = text_of(6)
    for tag, attributes in Reader(text).tags:
        assert tag not in ("link", "iframe", "object", "use")
        for name in ("src", "href", "srcset", "action", "style"):
            assert attributes.get(name, "data:image/").startswith("data:image/")
    assert "url(" not in text
    assert "@import" not in text


def test_the_verdict_is_on_top_with_what_the_tiles_cannot_rule_out():
    text = text_of(6)
    top = text[text.index("<h1>") : text.index("<h2>")]
    assert "Same roads" in top
    assert "held, but 6 tiles cannot rule out an IoU drop of 0.012 with 8 views" in top


def test_what_was_missed_is_on_top():
    verdict, evidence = checked(6)
    text = page(Verdict(verdict.found, GateLimits(0.001, 0.99)), evidence, ABOUT)
    assert "Not the same roads" in text
    assert "<li>IoU drops by 0.002 with 8 views, more than 0.001</li>" in text


def test_figures_stand_in_the_table():
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>', text_of(6))
    assert ("IoU, pooled", "0.7000", "0.7020", "\N{MINUS SIGN}0.0020") in rows
    assert ("broken links a km", "1.5000", "1.5000", "+0.0000") in rows


def test_the_best_threshold_is_named():
    assert re.search(r"best: 0\.\d+", text_of(6))
    assert "threshold in use: 0.45" in text_of(6)


def test_what_the_user_names_is_escaped():
    text = text_of(6, id=EVIL + "{}")
    assert text.count("<script") == 1
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def test_without_labels_there_are_no_curves():
    text = text_of(6, labelled=False)
    assert "Tile by tile" in text
    assert "Calibration of probabilities" not in text
    assert "candidate against label" not in text
    assert "no labels, so only the masks' agreement" in text


def test_rows_that_are_not_given_have_no_section():
    text = page(*checked(6), About(model="a", reference="b", tiles="c"))
    assert "<h2>Layers</h2>" not in text
    assert "<h2>Latency</h2>" not in text


def test_the_machine_and_its_versions_are_named():
    about = About(model="a", reference="b", tiles="c", facts={"cpu": "x", "versions": {"dlink": "1", "numpy": "2"}})
    text = page(*checked(2), about)
    assert "<dt>cpu</dt><dd>x</dd><dt>versions</dt><dd>dlink 1, numpy 2</dd>" in text


def test_a_long_table_is_folded():
    assert "<details><summary>20 rows</summary>" in text_of(6)


def test_many_tiles_make_no_larger_file():
    text = text_of(2000, side=32)
    assert text.count('<section class="tile">') == 8
    assert "1,992 other tiles left out" in text
    assert "1,500 of 2,000 are drawn" in text
    assert len(text) < 1_000_000


def test_pictures_that_have_no_room_are_left_out(monkeypatch):
    verdict, evidence = checked(6)
    size = sum(len(p.data) for p in evidence.worst()[0].pictures)
    assert size * 8 < MOST_BYTES
    monkeypatch.setattr("dlink.accuracy.report.page.MOST_BYTES", int(size * 1.5))
    text = page(verdict, evidence, ABOUT)
    assert text.count('<section class="tile">') == 1
    assert "5 other tiles left out" in text


def test_the_same_check_makes_the_same_page():
    assert text_of(6) == text_of(6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("report.pdf", "must end in .html"),
        ("no/report.html", "there is no folder"),
        ("x.html", "a folder; name a file"),
    ],
)
def test_a_path_that_will_not_do_is_refused(tmp_path, name, said):
    (tmp_path / "x.html").mkdir()
    with pytest.raises(BadInput, match=said):
        write_report(tmp_path / name, *checked(2), ABOUT)
    assert [p.name for p in tmp_path.iterdir()] == ["x.html"]


def test_every_picture_and_chart_has_words():
    tags = Reader(text_of(6)).tags
    pictures = [a["alt"] for tag, a in tags if tag == "img" and "src" in a]
    charts = [a["aria-label"] for tag, a in tags if tag == "svg" and "aria-hidden" not in a]
    assert len(pictures) == 6 * 6
    assert {alt.rpartition(": ")[0] for alt in pictures} == {f"Tile tile {i}" for i in range(6)}
    assert len(charts) == 4 + 4  # gates, and charts
    assert min(map(len, charts)) > 40


def luminance(colour):
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("ink", ["ink", "quiet", "good", "bad"])
@pytest.mark.parametrize("paper", ["paper", "card"])
def test_words_stand_out_from_their_ground(scheme, ink, paper):
    # WCAG 2.2, 1.4.3: at least 4.5 to 1
    root = files("dlink.accuracy.report").joinpath("report.css").read_text().split(":root {")[scheme + 1]
    colours = dict(re.findall(r"--(\w+): (#\w{6});", root))
    light, dark = sorted((luminance(colours[ink]), luminance(colours[paper])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, *checked(6, id=EVIL + "{}"), ABOUT)
    return path


@pytest.fixture(params=[PHONE, DESKTOP], ids=["phone", "desktop"])
def opened(browser, report, request):
    browser.said.clear()
    browser.open(report, *request.param)
    return browser


def test_the_console_is_silent_and_nothing_is_asked_for(opened):
    assert opened.run("document.title").startswith("Same roads: </script>")
    assert opened.said == []


def test_every_picture_is_there(opened):
    sizes = opened.run("[...document.querySelectorAll('.zoom img')].map((i) => i.complete && i.naturalWidth)")
    assert len(sizes) == 6 * 6
    assert set(sizes) == {64}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [PHONE, DESKTOP, (320, 600)])
def test_the_page_never_scrolls_sideways(browser, report, size, dark):
    browser.open(report, *size, dark=dark)
    browser.run("document.querySelector('details').open = true")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    wide = "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth).length"
    assert browser.run(wide) == 0


def test_letters_are_large_enough_in_charts(opened):
    sizes = """[...document.querySelectorAll('svg text')].map((t) =>
        parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getBoundingClientRect().width
        / t.ownerSVGElement.viewBox.baseVal.width)"""
    assert min(opened.run(sizes)) >= 8.5


def test_words_in_charts_stay_inside(opened):
    outside = """[...document.querySelectorAll('main svg text')].filter((t) => {
        const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();
        return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
    }).map((t) => t.textContent)"""
    assert opened.run(outside) == []


@pytest.mark.parametrize("dark", [False, True])
def test_both_schemes_are_drawn(browser, report, dark):
    browser.open(report, *PHONE, dark=dark)
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) < 128) == dark


def test_tab_reaches_every_picture_and_focus_is_seen(opened):
    reached = set()
    for _ in range(6 * 6 + 1):  # and the folded table
        opened.press("Tab")
        kind, name, style = opened.run(
            "(() => { const e = document.activeElement, s = getComputedStyle(e);"
            "return [e.className, e.getAttribute('aria-label'), s.outlineStyle + ' ' + s.outlineWidth] })()"
        )
        assert style == "solid 3px"
        if kind == "zoom":
            reached.add(name)
    assert len(reached) == 6 * 6


OPEN = "document.querySelector('dialog').open"
LARGE = "document.querySelector('dialog img')"
FOCUSED = "[...document.querySelectorAll('.zoom')].indexOf(document.activeElement)"


def test_enter_enlarges_and_escape_goes_back(opened):
    opened.press("Tab")
    small = opened.run("document.activeElement.getBoundingClientRect().width")
    opened.press("Enter")
    assert opened.run(OPEN)
    assert opened.run(f"{LARGE}.naturalWidth") == 64
    assert opened.run(f"{LARGE}.getBoundingClientRect().width") > small
    opened.press("Escape")
    assert not opened.run(OPEN)
    assert opened.run(FOCUSED) == 0


def test_arrows_go_from_picture_to_picture(opened):
    opened.press("Tab")
    opened.press("Enter")
    opened.press("ArrowRight")
    assert opened.run(f"{LARGE}.alt").endswith(": label")
    opened.press("ArrowLeft")
    opened.press("ArrowLeft")
    opened.press("Escape")
    assert opened.run(FOCUSED) == 6 * 6 - 1


def test_a_large_picture_stays_in_the_window(opened):
    opened.press("Tab")
    opened.press("Enter")
    left, top, right, bottom = opened.run(
        f"(() => {{ const r = {LARGE}.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom] }})()"
    )
    assert min(left, top) >= 0
    assert right <= opened.run("innerWidth")
    assert bottom <= opened.run("innerHeight")


def test_the_page_is_read_without_its_script(browser, report, tmp_path):
    bare = tmp_path / "bare.html"
    bare.write_text(re.sub(r"<script>.*</script>\n</body>", "</body>", report.read_text(), flags=re.DOTALL))
    browser.open(bare, *PHONE)
    assert browser.run("[...document.querySelectorAll('.zoom img')].every((i) => i.naturalWidth)")


def test_the_browser_would_tell_of_what_the_policy_stops(browser, report, tmp_path):
    # What the silence of the other test is worth: a script of another hash neither runs nor goes unseen.
    changed = tmp_path / "changed.html"
    changed.write_text(report.read_text().replace("<main>", "<main><script>document.title = 'evil'</script>"))
    browser.said.clear()
    browser.open(changed, *PHONE)
    assert browser.run("document.title") != "evil"
    assert "Content Security Policy" in "".join(browser.said)
