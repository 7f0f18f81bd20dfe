"""The look of roads in QGIS, kept in a GeoPackage's own table `layer_styles`, from which QGIS takes it by itself.

A road is as wide on the screen as on the ground (`width_m`), but never too thin to see, with a darker edge. Of lines
that need a look, the colour says why: red to review, violet a bridged gap (dashed), orange of low probability. Each
line has one colour, the first of these that fits.

The XML is that of QGIS 3 (`renderer-v2`, rules; sizes in `RenderMetersInMapUnits`). The table is the one that QGIS
makes when it saves a style in a GeoPackage (github.com/pka/qgpkg, qgis_geopackage_extension.md), listed in
gpkg_contents as `attributes`, so that GDAL and QGIS find it.
"""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

VERSION = "3.28.0-Firenze"  # of QGIS, whose XML this is; later ones read it
DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
LOW = 0.7  # mean probability along a line, below which it is of another colour
EDGE_M = 1.5  # by which the edge is wider than the road
THIN_MM, THIN_EDGE_MM = 0.35, 0.6  # on the screen, at least
ROAD, BRIDGE, DOUBTFUL, REVIEW = (
    "255,214,102,255",
    "142,68,173,255",
    "243,146,0,255",
    "214,39,40,255",
)  # red, green, ...
EDGE, BRIDGE_EDGE = "92,82,64,255", "255,255,255,255"
EXPRESSION = "3"  # a property of QGIS that is an expression (QgsProperty::ExpressionBasedProperty)
TABLE = """CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
  f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"""
LISTED = """INSERT INTO gpkg_contents (table_name, data_type, identifier, description, srs_id)
  VALUES ('layer_styles', 'attributes', 'layer_styles', 'Styles of QGIS', 0)"""
ROW = """INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName,
  styleQML, styleSLD, useAsDefault, description, owner)
  SELECT '', '', table_name, column_name, 'roads', ?, '', 1, 'Roads by dlink', '' FROM gpkg_geometry_columns
  WHERE table_name = ?"""


def add_style(path: Path, layer: str, fields: Collection[str]) -> None:
    """Put the style of roads into a GeoPackage that has none, as the layer's default.

    Raises:
        sqlite3.Error: The file cannot be written.
    """
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(TABLE)
        file.execute(LISTED)
        file.execute(ROW, (qml(fields), layer))


def qml(fields: Collection[str]) -> str:
    """The style of lines with these fields."""
    top = Element("qgis", version=VERSION, styleCategories="Symbology", labelsEnabled="0")
    renderer = SubElement(
        top, "renderer-v2", type="RuleRenderer", symbollevels="1", enableorderby="0", forceraster="0",
        referencescale="-1",
    )  # fmt: skip
    rules, symbols = SubElement(renderer, "rules", key="{roads}"), SubElement(renderer, "symbols")
    for i, (label, filter, colour) in enumerate(kinds(fields)):
        SubElement(rules, "rule", key=f"{{roads-{i}}}", symbol=str(i), label=label, filter=filter)
        symbol = SubElement(symbols, "symbol", name=str(i), type="line", alpha="1", clip_to_extent="1", force_rhr="0")
        gap = colour == BRIDGE
        line(symbol, 0, BRIDGE_EDGE if gap else EDGE, EDGE_M, THIN_EDGE_MM)
        line(symbol, 1, colour, 0, THIN_MM, dashed=gap)
    SubElement(top, "layerGeometryType").text = "1"
    return DOCTYPE + tostring(top, encoding="unicode")


def kinds(fields: Collection[str]) -> list[tuple[str, str, str]]:
    """What lines are told apart: in words, the expression, and the colour. A line fits one expression alone."""
    wanted = [
        ("review", "To review", "coalesce(\"review\", '') <> ''", REVIEW),
        ("bridge", "Bridged gap", 'coalesce("bridge", 0) = 1', BRIDGE),
        ("probability", f"Road, probability below {LOW:g}", f'coalesce("probability", 1) < {LOW:g}', DOUBTFUL),
    ]
    found: list[tuple[str, str, str]] = []
    before: list[str] = []
    for field, label, filter, colour in wanted:
        if field in fields:
            found.append((label, " AND ".join([filter, *(f"NOT ({each})" for each in before)]), colour))
            before.append(filter)
    return [*found, ("Road", "ELSE", ROAD)]


def line(symbol: Element, level: int, colour: str, wider: float, least: float, dashed: bool = False) -> None:
    """A line of a symbol, `wider` metres more than the road and at least `least` mm; lower levels are below."""
    layer = SubElement(symbol, "layer", {"class": "SimpleLine"}, enabled="1", locked="0")
    layer.set("pass", str(level))
    values = {
        "capstyle": "flat" if dashed else "round",
        "customdash": "1.6;1",
        "customdash_unit": "MM",
        "joinstyle": "round",
        "line_color": colour,
        "line_style": "solid",
        "line_width": f"{5 + wider:g}",  # where the expression has no value
        "line_width_unit": "RenderMetersInMapUnits",
        "use_custom_dash": "1" if dashed else "0",
        "width_map_unit_scale": f"3x:0,0,1,{least:g},0,0",  # its fourth is the least size in mm, its third says so
    }
    options = SubElement(layer, "Option", type="Map")
    for name, value in values.items():
        SubElement(options, "Option", type="QString", name=name, value=value)
    chosen = SubElement(SubElement(layer, "data_defined_properties"), "Option", type="Map")
    SubElement(chosen, "Option", type="QString", name="name", value="")
    width = SubElement(SubElement(chosen, "Option", type="Map", name="properties"), "Option", type="Map")
    width.set("name", "outlineWidth")
    SubElement(width, "Option", type="bool", name="active", value="true")
    SubElement(width, "Option", type="QString", name="expression", value=f'"width_m" + {wider:g}')
    SubElement(width, "Option", type="int", name="type", value=EXPRESSION)
    SubElement(chosen, "Option", type="QString", name="type", value="collection")
