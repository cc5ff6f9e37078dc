"""Charts as PDF, SVG and PNG: the right size, no links or dates, the same bytes twice, and nothing from users run."""

import io
import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from charts_run import add_times, drawn, fixed_run
from PIL import Image
from report_run import case, make_run

from bench.record.run_folder import RunFolder
from bench.report.charts.chart import Chart
from bench.report.charts.files import FORMATS, WIDTHS_INCH, write_figure, write_figures
from scarlet.errors import BenchError

HOSTILE = "</svg><script>alert(1)</script><a href='javascript:1'>&amp;"


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> list[Chart]:
    return list(drawn(fixed_run(tmp_path_factory.mktemp("figures") / "run")).values())


def test_every_chart_in_every_width_and_format(charts: list[Chart], tmp_path: Path) -> None:
    chosen = [chart for chart in charts if chart.name in ("latency_ecdf", "waterfall")]
    paths = write_figures(chosen, tmp_path / "figures")
    assert [path.name for path in paths] == [
        f"{name}-{width}.{kind}" for name in ("latency_ecdf", "waterfall") for width in WIDTHS_INCH for kind in FORMATS
    ]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(path.name for path in paths)
    for path in paths:
        wide = WIDTHS_INCH["single" if "-single" in path.name else "double"]
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width == pytest.approx(300 * wide, rel=0.01)
                assert image.info["dpi"] == pytest.approx((300, 300), rel=0.01)
        elif path.suffix == ".svg":
            root = ElementTree.parse(path).getroot()
            assert root.attrib["width"].endswith("pt")
            assert float(root.attrib["width"][:-2]) == pytest.approx(72 * wide, rel=0.01)
        else:
            assert path.read_bytes().startswith(b"%PDF")
            box = path.read_bytes().split(b"/MediaBox [", 1)[1].split(b"]")[0].split()
            assert float(box[2]) == pytest.approx(72 * wide, rel=0.01)


def test_the_same_charts_give_the_same_bytes(charts: list[Chart], tmp_path: Path) -> None:
    """In PDFs fonts and opacities decide: these two charts have the most kinds of marks."""
    chosen = [chart for chart in charts if chart.name in ("latency_rounds", "waterfall")]
    first, *others = ([path.read_bytes() for path in write_figures(chosen, tmp_path / f"{n}")] for n in range(3))
    assert all(other == first for other in others)
    assert all(b"Date" not in data for data in first)


def test_text_is_in_the_font_that_comes_along(charts: list[Chart], tmp_path: Path) -> None:
    (chosen,) = [chart for chart in charts if chart.name == "latency_ecdf"]
    write_figure(chosen, tmp_path / "figure.pdf", "single")
    data = (tmp_path / "figure.pdf").read_bytes()
    assert b"LiberationSans" in data
    assert b"/FontFile" in data


def test_a_figure_on_paper_has_no_tooltips_and_no_hidden_points(charts: list[Chart], tmp_path: Path) -> None:
    (chosen,) = [chart for chart in charts if chart.name == "latency_ecdf"]
    write_figure(chosen, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    assert "PyTorch FP32" in text
    assert chosen.case_ids[0] not in text
    assert len(text) < 60_000
    assert 'fill="white"' in text
    first = list(ElementTree.fromstring(text))[:2]
    assert [part.text for part in first] == [chosen.title, chosen.alt]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    planned = [case(model=f"onnx:{HOSTILE}{place}") for place in range(2)]
    folder = make_run(tmp_path / "run", planned)
    for seed, one in enumerate(planned):
        add_times(folder, one, 5.0, seed)
    for chart, suffix in itertools.product(drawn(folder).values(), (".svg", ".png")):
        path = tmp_path / f"{chart.name}{suffix}"
        write_figure(chart, path)
        if suffix == ".svg":
            root = ElementTree.parse(path).getroot()
            tags = {element.tag.split("}")[-1] for element in root.iter()}
            assert not tags & {"script", "a", "image", "foreignObject"}
        else:
            with Image.open(io.BytesIO(path.read_bytes())) as image:
                image.verify()


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    assert write_figures([], tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


def test_mistakes_are_told(charts: list[Chart], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot write"):
        write_figure(charts[0], tmp_path / "file" / "figure.svg")


def test_a_run_folder_is_not_touched(charts: list[Chart], tmp_path: Path) -> None:
    folder: RunFolder = make_run(tmp_path / "run", [case()])
    before = sorted(folder.path.rglob("*"))
    assert drawn(folder) == {}
    assert sorted(folder.path.rglob("*")) == before
