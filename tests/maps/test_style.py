"""A GeoPackage carries the look of its roads for QGIS, and stays a GeoPackage."""

import re
import sqlite3
from contextlib import closing
from xml.etree.ElementTree import fromstring

import numpy as np
import pyogrio
import pytest

from dlink.imagery.vectors import read_vectors
from dlink.maps.style import DOCTYPE, kinds, qml
from dlink.maps.write import Roads, write_roads

ALL = ["width_m", "bridge", "probability", "review"]


def rows(path, query):
    with closing(sqlite3.connect(path)) as file:
        return file.execute(query).fetchall()


@pytest.fixture
def package(tmp_path):
    fields = {"id": np.array([1]), "width_m": np.array([6.0]), "bridge": np.array([0], np.int32)}
    write_roads(tmp_path / "roads.gpkg", Roads([np.array([[0.0, 0], [90, 10]])], None, fields))
    return tmp_path / "roads.gpkg"


def test_the_style_is_the_layers_default(package):
    found = rows(package, "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles")
    assert found == [("roads", "geom", 1, qml(["bridge"]))]
    assert rows(package, "SELECT data_type, srs_id FROM gpkg_contents WHERE table_name = 'layer_styles'") == [
        ("attributes", 0)
    ]
    assert rows(package, "PRAGMA integrity_check") == [("ok",)]
    (when,) = rows(package, "SELECT update_time FROM layer_styles")[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", when)
    assert [path.name for path in package.parent.iterdir()] == ["roads.gpkg"]


def test_the_roads_are_still_the_first_layer_and_the_only_one_with_lines(package):
    assert pyogrio.list_layers(package).tolist() == [["roads", "LineString"], ["layer_styles", None]]
    _, _, _, columns = pyogrio.raw.read(package, layer="layer_styles", columns=["styleName"])
    assert columns[0].tolist() == ["roads"]
    assert len(read_vectors(package).lines) == 1


def test_each_symbol_has_a_rule_and_widths_of_the_field():
    text = qml(ALL)
    assert text.startswith(DOCTYPE)
    top = fromstring(text.removeprefix(DOCTYPE))
    used = [rule.get("symbol") for rule in top.iter("rule")]
    assert used == [symbol.get("name") for symbol in top.iter("symbol")] == ["0", "1", "2", "3"]
    for symbol in top.iter("symbol"):
        edge, road = symbol.findall("layer")
        assert (edge.get("pass"), road.get("pass")) == ("0", "1")
        for layer, expected in ((edge, '"width_m" + 1.5'), (road, '"width_m" + 0')):
            options = {each.get("name"): each.get("value") for each in layer.iter("Option")}
            assert options["expression"] == expected
            assert options["line_width_unit"] == "RenderMetersInMapUnits"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "Road"),
        ({"probability": 0.9, "bridge": 0, "review": ""}, "Road"),
        ({"probability": 0.6, "bridge": 0, "review": ""}, "Road, probability below 0.7"),
        ({"probability": None, "bridge": None, "review": None}, "Road"),
        ({"probability": 0.6, "bridge": 1, "review": ""}, "Bridged gap"),
        ({"probability": 0.6, "bridge": 1, "review": "crosses way 7"}, "To review"),
    ],
)
def test_a_line_fits_one_rule(fields, expected):
    """The expressions are also SQL, so SQLite says which are true."""
    fitting = []
    with closing(sqlite3.connect(":memory:")) as file:
        for label, expression, _ in kinds(fields):
            for name, value in fields.items():
                said = "NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value)
                expression = expression.replace(f'"{name}"', said)
            if expression == "ELSE" or file.execute(f"SELECT {expression}").fetchone()[0]:
                fitting.append(label)
    assert fitting[0] == expected
    assert len(fitting) == (1 if expected == "Road" else 2)  # ELSE is for the rest


def test_a_style_that_cannot_be_written_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("dlink.maps.style.TABLE", "CREATE TABLE gpkg_contents (id)")  # is there already
    fields = {"id": np.array([1]), "width_m": np.array([6.0])}
    with pytest.raises(OSError, match=r"can't be written, is the disk full\? GDAL says: table gpkg_contents already"):
        write_roads(tmp_path / "roads.gpkg", Roads([np.array([[0.0, 0], [90, 10]])], None, fields))
    assert list(tmp_path.iterdir()) == []
