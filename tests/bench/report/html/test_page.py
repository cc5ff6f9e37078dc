"""The HTML report as a file: what stands in it, that it is the same twice, and that nothing in it can break out."""

import base64
import hashlib
import html as html_module
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import html_run
import pytest
from folders import golden
from PIL import Image
from report_run import add_predictions, case, end, make_run

from bench.analysis.table import DEMO_NOTE, load, load_frame
from bench.record.case import Status
from bench.report.html import charts
from bench.report.html import page as html
from bench.report.html.charts import CURVE_POINTS, DATA_ROWS, data_table
from bench.report.html.flips import FLIPS_OF_PAIR, SIDE_PIXELS, Pictures
from bench.report.html.safety import content_policy, inlined, island, visible

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></script>\u202egpj.exe\n{{ 7*7 }}\x1b[31m"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with one of everything, and its page."""
    root = tmp_path_factory.mktemp("html")
    folder = html_run.make(root / "run", root / "data")
    return folder, written(folder)


def written(folder):
    """The page of a run."""
    path = folder.path / "report.html"
    html.write(load(folder.path), path)
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Elements with their attributes, and all text outside of scripts and styles."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words, self._open = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag, **wanted):
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and all(attrs.get(key) == value for key, value in wanted.items())
        ]


def between(source, start, stop):
    return source.split(start, 1)[1].split(stop, 1)[0]


def test_twice_the_same_bytes_whatever_the_clock_says(run, monkeypatch):
    folder, source = run
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    os.utime(folder.path / "samples.parquet")
    assert written(folder) == source


def test_nothing_is_loaded_from_anywhere(run):
    _, source = run
    page = Page(source)
    for _, attrs in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert re.match(r"(#|data:image/jpeg;base64,)", attrs.get(name) or "#"), attrs
    assert not page.all("link")
    style = between(source, "<style>", "</style>")
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_the_pages_own_scripts_and_nothing_else(run):
    _, source = run
    policy = Page(source).all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    bodies = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    assert len(bodies) == 2
    digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
    assert re.findall(r"'sha256-(.*?)'", policy) == digests
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-eval" not in policy


def test_the_page_says_what_must_be_said(run):
    _, source = run
    page = Page(source)
    for words in (
        DEMO_NOTE,
        "18 Cases of scarlet_c (demo weights): 15 ok, 1 crashed, 1 fallback, 1 unavailable",
        "Example CPU with 8 cores",
        "78 of 255 nodes ran in float32",
        "the worker was killed by signal 9",
        "TensorRT is not installed: pip install tensorrt",
        "Set it to performance: sudo cpupower frequency-set",
        "valid/n00000007/torn.JPEG: the file ends too early",
        "scarlet-bench run --model scarlet_c --precisions fp32,int8",
        "scarlet-bench report .",
        "Where accuracy was lost",
        "2025.4.0",
    ):
        assert words in page.text, words
    assert "/opt/venv" not in page.text


def test_a_row_for_every_case_and_every_cell_names_its_case_and_file(run):
    folder, source = run
    results = between(source, '<section id="results">', '<section id="charts">')
    rows = re.findall(r'<tr data-case="(.*?)"(.*?)</tr>', results, re.DOTALL)
    frame = load_frame(folder.path)
    assert sorted(case_id for case_id, _ in rows) == sorted(frame["case_id"])
    for case_id, body in rows:
        titles = re.findall(r'<t[hd] .*?title="(.*?)">', body)
        assert len(titles) == len(re.findall("<t[hd] ", body)) > 5
        assert all(
            re.match(rf"Case {case_id}, from (cases\.jsonl|samples\.parquet|predictions\.parquet)", title)
            for title in titles
        )
        assert f'href="#case-{case_id}"' in body
        assert f'id="case-{case_id}"' in source


def test_numbers_come_with_their_intervals_and_verdicts_in_words_and_signs(run):
    _, source = run
    latency = between(source, '<section class="rows" id="rows-latency">', "</section>")
    rows = re.findall(r"<tr data-case.*?</tr>", latency, re.DOTALL)
    faster = next(row for row in rows if "faster" in row)
    assert re.search(r'<span class="sign" aria-hidden="true">▲</span> [\d.]+x faster</span>', faster)
    assert re.search(r"<small>[\d.]+ to [\d.]+</small>", faster)
    assert "against Case" in faster
    assert 'data-v="1"' in rows[0]  # the baseline sorts as a ratio of 1
    assert "<small>95 % interval</small>" in latency


def test_proof_and_host_of_each_row(run):
    folder, source = run
    for result in folder.case_results():
        details = between(source, f'id="case-{result.case.case_id}"', "</details>")
        assert "Example CPU with 8 cores" in details
        if result.proof:
            shown = html_module.unescape(between(details, '<h4>proof</h4>\n<pre tabindex="0">', "</pre>"))
            assert json.loads(shown) == result.proof


def test_a_long_proof_is_cut_and_says_so(tmp_path):
    one = case()
    folder = make_run(tmp_path / "run", [one])
    end(folder, one, Status.FAILED, reason="it raised", proof={"layers": ["conv"] * 5000})
    page = Page(written(folder))
    assert re.search(r"… \d\d,\d\d\d more characters in the run's folder", page.text)


def test_an_empty_plan_and_a_run_that_never_began_are_pages_too(tmp_path):
    page = Page(written(make_run(tmp_path / "none", [])))
    assert "No Case was planned." in page.text
    source = written(make_run(tmp_path / "stopped", [case(), case(batch=8)]))
    assert "2 interrupted" in Page(source).text
    assert len(re.findall("<script>", source)) == 1  # no charts, so no Vega


def test_golden(run):
    """The page without scripts, styles, pictures and charts: looked at by eye whenever it changes."""
    folder, source = run
    root = folder.read_run_info()["dataset"]["root"]
    bare = re.sub(r"<(style|script)([^>]*)>.*?</\1>", r"<\1\2></\1>", source, flags=re.DOTALL)
    bare = re.sub(r'<section id="charts">.*?(?=<section id="where-accuracy-was-lost">)', "", bare, flags=re.DOTALL)
    bare = re.sub(r"data:image/jpeg;base64,[^\"]*", "data:,", bare)
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", bare)
    bare = re.sub(r"\n\s*\n+", "\n", bare.replace(root, "/data"))
    assert bare == golden("html/report.html", bare)


@pytest.fixture
def hostile(tmp_path):
    """A run in which every text that can come from outside is an attack."""
    names = {"model": HOSTILE, "options": (("recipe", HOSTILE),)}
    scored = [case(scenario="accuracy", backend=backend, **names) for backend in ("pytorch", "onnxruntime")]
    failed = case(**names)
    info = {
        "command": ["scarlet-bench", HOSTILE],
        "created_at": HOSTILE,
        "host": {"cpu_model": HOSTILE},
        "packages": {"scarlet-bench": HOSTILE},
        "dataset": {"root": str(tmp_path / HOSTILE.replace("/", "")), "n_images": 2, "layout": HOSTILE},
        "warnings": [{"kind": HOSTILE, "text": HOSTILE, "advice": HOSTILE}],
    }
    folder = make_run(tmp_path / "run", [*scored, failed], info)
    for place, one in enumerate(scored):
        add_predictions(folder, one, {HOSTILE: (0, [place, 5, 6, 7, 8]), "good": (1, [1, 2, 3, 4, 5])})
        bad = ({"image_id": HOSTILE, "reason": HOSTILE},)
        end(folder, one, proof={HOSTILE: HOSTILE}, bad_images=bad)
    end(folder, failed, Status.FAILED, reason=HOSTILE)
    return folder


def test_text_from_outside_is_text(hostile):
    source = written(hostile)
    page = Page(source)
    assert {tag for tag, _ in page.elements} & {"img", "iframe", "object"} == set()
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert len(page.all("script")) <= 3
    assert "alert(1)" in page.text
    assert "<script>alert" not in source
    assert "[U+202E]" in page.text
    assert "\u202e" not in page.text
    assert "{{ 7*7 }}" in page.text
    assert "\x1b" not in source.replace(between(source, "<script>", "</html>"), "")


def test_visible_keeps_lines_and_spells_out_what_turns_text_round():
    assert visible("a\nb\tc") == "a\nb\tc"
    assert visible("a\x00b\x1bc\x85d") == "a b c d"
    assert visible("\u2066x\u061c") == "[U+2066]x[U+061C]"
    assert visible("שלום") == "שלום"  # a name in Hebrew is a name


def test_islands_and_scripts_cannot_be_ended_from_inside():
    value = {"</script><!--": ["&", "\u2028", float("nan"), Path("a")]}
    text = str(island(value))
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"</script><!--": ["&", "\u2028", None, "a"]}
    assert inlined('a = "</SCRIPT>";\r\nb = "<!--"') == 'a = "\\x3C/SCRIPT>";\nb = "\\x3C!--"'


def test_policy_of_no_script():
    assert "script-src ;" in content_policy()


def test_flips_show_picture_file_label_and_both_predictions(run):
    _, source = run
    flips = between(source, '<section id="flips">', '<section id="what-may')
    cards = re.findall(r'<li class="card".*?</li>', flips, re.DOTALL)
    assert len(cards) > FLIPS_OF_PAIR
    assert f"{FLIPS_OF_PAIR} of 42 flips" in flips
    for card in cards:
        words = Page(card).text
        assert re.search(r"valid/n\d+/image_\d+\.JPEG label \d+ \(n\d+\) base \d+ \(n\d+\) margin [\d.e-]+ here", words)
        assert re.search(r"(▲ win|▼ loss|◆ both wrong)$", words)
    images = Page(flips).all("img")
    assert len(images) == len(cards)
    assert all(re.match("valid/n", image["alt"]) for image in images)
    data = base64.b64decode(images[0]["src"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        assert max(picture.size) == SIDE_PIXELS
        assert len(data) < 6000


def test_flips_without_the_data_folder_say_why(run, tmp_path):
    folder, _ = run
    info = folder.read_run_info()
    gone = {**info, "dataset": {**info["dataset"], "root": str(tmp_path / "gone")}}
    folder.write_run_info(gone)
    try:
        page = Page(written(folder))
    finally:
        folder.write_run_info(info)
    assert not page.all("img")
    assert "the data folder of the run is not on this machine" in page.text


def test_pictures_come_from_the_data_folder_alone(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    secret = tmp_path / "secret.jpeg"
    Image.new("RGB", (300, 200), "red").save(secret)
    Image.new("RGBA", (300, 40), "red").save(root / "wide.png")
    Image.new("RGB", (10, 10), "red").save(root / "torn.jpeg")
    (root / "torn.jpeg").write_bytes((root / "torn.jpeg").read_bytes()[:200])
    (root / "text.jpeg").write_text("no image")
    pictures = Pictures(str(root))
    for image_id in ("../secret.jpeg", str(secret), "a/../../secret.jpeg", "x\0.jpeg"):
        assert pictures.of(image_id) == ("", "its name leads out of the data folder")
    assert pictures.of("none.jpeg") == ("", "the file is no longer in the data folder")
    assert pictures.of("text.jpeg") == pictures.of("torn.jpeg") == ("", "the file cannot be decoded")
    uri, missing = pictures.of("wide.png")
    assert not missing
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        assert picture.size == (96, 13)
    assert Pictures(None).of("a.jpeg") == ("", "the run does not say where its images were")


def test_equal_predictions_are_a_sentence(tmp_path):
    scored = [case(scenario="accuracy", backend=backend) for backend in ("pytorch", "onnxruntime")]
    folder = make_run(tmp_path / "run", scored)
    for one in scored:
        add_predictions(folder, one, {f"i{place}": (place, [place, 1, 2, 3, 4]) for place in range(9)})
        end(folder, one)
    assert (
        "On all 9 images onnxruntime cpu fp32 and pytorch cpu fp32 have the same top-1 class."
        in Page(written(folder)).text
    )


def test_a_case_that_cannot_be_paired_says_why(tmp_path):
    scored = [case(scenario="accuracy", backend=backend) for backend in ("pytorch", "onnxruntime")]
    folder = make_run(tmp_path / "run", scored)
    for name, one in zip("ab", scored, strict=True):
        add_predictions(folder, one, {name: (1, [1, 2, 3, 4, 5])})
        end(folder, one)
    assert re.search(r"onnxruntime cpu fp32 batch 1 is not compared: .* no image in common", Page(written(folder)).text)


def test_scripts_are_bundled_once_and_come_without_a_store_too(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(charts, "_bundle", lambda: made.append(1) or "vegaEmbed = 1;")
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "store"))
    fresh = charts.vega_scripts.__wrapped__
    assert fresh() == fresh() == "vegaEmbed = 1;"
    assert len(made) == 1
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "file"))
    assert fresh() == "vegaEmbed = 1;"
    assert len(made) == 2


def test_data_tables_hold_what_a_chart_draws():
    table = data_table([{"a": 1, "b": 0.123456789}, {"a": None, "c": "x"}])
    assert table.header == ("a", "b", "c")
    assert table.rows == (("1", "0.123457", ""), ("", "", "x"))
    assert table.more == 0


def test_curves_are_shown_at_a_few_points_and_long_data_is_cut():
    table = data_table([{"name": "one", "x": list(range(101)), "y": [0.5] * 101}])
    assert len(table.rows) == CURVE_POINTS
    assert table.rows[0] == ("one", "0", "0.5")
    assert table.rows[-1] == ("one", "100", "0.5")
    assert table.more == 101 - CURVE_POINTS
    long = data_table([{"a": place} for place in range(DATA_ROWS + 5)])
    assert (len(long.rows), long.more) == (DATA_ROWS, 5)
