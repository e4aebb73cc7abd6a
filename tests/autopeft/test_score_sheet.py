"""Score sheets: values by hand, agreement of the three forms, and escaping."""

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from autopeft.errors import ConfigurationError
from autopeft.score_sheet import html_sheet, svg_sheet, text_sheet
from autopeft.score_sheet.grid import compact, lay_out, percent
from autopeft.score_sheet.palette import DARK, LIGHT, Palette
from search_spaces.backbone import Backbone, ModuleShape
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.lora import Lora

SVG = "{http://www.w3.org/2000/svg}"


def backbone(layers: int, name: str = "tiny", gated: bool = False) -> Backbone:
    def row(index: int) -> tuple[ModuleShape, ...]:
        modules = [
            ModuleShape("query", f"layer.{index}.query", 8, 8),
            ModuleShape("value", f"layer.{index}.value", 8, 8),
        ]
        if gated and index == 0:
            modules.append(ModuleShape("gate", f"layer.{index}.gate", 8, 32))
        return (*modules, ModuleShape("down", f"layer.{index}.down", 32, 8))

    return Backbone(name, "bert", 8, 10_000, tuple(row(index) for index in range(layers)))


def configuration(ranks: list[dict[str, int]]) -> Configuration:
    rows = (LayerPlan(tuple(Placement(site, Lora(rank, 2.0 * rank)) for site, rank in row.items())) for row in ranks)
    return Configuration(tuple(rows), Training(2e-3))


THREE = configuration([{"query": 4, "down": 8}, {}, {"value": 64}])


class Rows(HTMLParser):
    """The cells of a table by row, and the tags that were met."""

    def __init__(self):
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def parsed(markup: str) -> Rows:
    parser = Rows()
    parser.feed(markup)
    return parser


def test_the_text_sheet_shows_ranks_sums_and_parameters():
    lines = text_sheet(THREE, backbone(3)).splitlines()
    assert [line.split() for line in lines[:6]] == [
        ["layer", "0", "1", "2", "Σ", "rank"],
        ["query", "4", "·", "·", "4"],
        ["value", "·", "·", "64", "64"],
        ["down", "8", "·", "·", "8"],
        ["Σ", "rank", "12", "0", "64", "76"],
        ["parameters", "384", "0", "1,024", "1,408"],
    ]
    assert lines[-1] == "Σ rank 76 · 1,408 trainable parameters · 14.08 % of 10,000 · learning rate 0.002"


def test_the_text_sheet_shows_what_was_learned_of_each_layer():
    details = {"importance": {"importance": [-1.25, None, 10.5], "updates": [1, None, 3]}}
    learned = text_sheet(THREE, backbone(3), details=details).splitlines()
    line = next(line for line in learned if line.startswith("importance"))
    assert line.split() == ["importance", "-1.25", "–", "10.50"]
    assert "importance" not in text_sheet(THREE, backbone(3))


@pytest.mark.parametrize("layers", [6, 24, 96])
def test_a_deep_text_sheet_stays_within_the_width_and_shows_each_layer_once(layers: int):
    sheet = text_sheet(configuration([{"query": 32}] * layers), backbone(layers), width=80)
    heads = [line.removesuffix("Σ rank") for line in sheet.splitlines() if line.startswith("layer")]
    assert max(len(line) for line in sheet.splitlines()) <= 80
    assert [int(number) for head in heads for number in head.split()[1:]] == list(range(layers))


def test_a_module_that_a_layer_lacks_is_blank_and_not_unadapted():
    grid = lay_out(configuration([{}, {"query": 1}]), backbone(2, gated=True))
    gate = grid.rows[grid.roles.index("gate")]
    assert [cell.text for cell in gate] == ["·", ""]


def test_the_html_sheet_is_an_accessible_table_with_the_same_numbers():
    table = parsed(html_sheet(THREE, backbone(3)))
    assert table.rows[0] == ["layer", "0", "1", "2", "Σ rank"]
    assert table.rows[2] == ["value", "·", "·", "64", "64"]
    assert table.rows[-1] == ["parameters", "384", "0", "1.0k", "1,408"]
    heads = [attributes for tag, attributes in table.tags if tag == "th"]
    assert all(attributes.get("scope") in ("row", "col") for attributes in heads)
    assert "caption" in {tag for tag, _ in table.tags}
    assert "script" not in {tag for tag, _ in table.tags}


def test_every_cell_of_the_html_sheet_says_itself_in_words():
    titles = [
        attributes["title"] for tag, attributes in parsed(html_sheet(THREE, backbone(3))).tags if "title" in attributes
    ]
    assert "layer 2 value: LoRA rank 64, alpha 128, 1,024 parameters" in titles
    assert "layer 1 down: not adapted" in titles


def test_the_svg_sheet_is_well_formed_and_fetches_nothing():
    for dark in (False, True):
        text = svg_sheet(THREE, backbone(3), title="Trial 7", dark=dark)
        root = ElementTree.fromstring(text)
        assert root.find(f"{SVG}title").text == "Trial 7"  # type: ignore[union-attr]
        assert "1,408 trainable parameters" in (root.find(f"{SVG}desc").text or "")  # type: ignore[union-attr]
        assert "64" in {element.text for element in root.iter(f"{SVG}text")}
        assert not re.search(r"href|<script|@import|url\((?!#)", text)


def test_a_deep_svg_sheet_drops_the_digits_and_keeps_the_tooltips():
    root = ElementTree.fromstring(svg_sheet(configuration([{"query": 32}] * 96), backbone(96)))
    shown = [element.text for element in root.iter(f"{SVG}text")]
    tooltips = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert shown.count("32") == 2  # layer number and legend
    assert sum("rank 32" in text for text in tooltips) == 96


def test_names_are_escaped_everywhere():
    hostile = '<script>alert("1")</script>&'
    for text in (
        html_sheet(THREE, backbone(3), caption=hostile),
        svg_sheet(THREE, backbone(3), title=hostile),
        svg_sheet(THREE, backbone(3, name=hostile)),
    ):
        assert "<script" not in text
        assert "&lt;script&gt;" in text


def test_a_configuration_for_another_backbone_is_refused():
    with pytest.raises(ConfigurationError, match="3 layers"):
        text_sheet(THREE, backbone(2))


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_text_on_every_shade_has_contrast_of_at_least_four_and_a_half(palette: Palette):
    pairs = [*palette.shades, (palette.background, palette.text), (palette.background, palette.muted)]
    pairs += [(fill, palette.muted) for fill in palette.hatch]
    assert min(contrast(fill, ink) for fill, ink in pairs) >= 4.5


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_shades_follow_the_rank_in_one_direction(palette: Palette):
    brightness = [luminance(fill) for fill, _ in palette.shades]
    assert brightness in (sorted(brightness), sorted(brightness, reverse=True))


def test_counts_and_fractions_are_short():
    assert [compact(n) for n in (0, 999, 1000, 9216, 99_960, 113_566, 999_600, 2_000_000_000)] == [
        "0", "999", "1.0k", "9.2k", "100k", "114k", "1.0M", "2.0B",
    ]  # fmt: skip
    assert [percent(f) for f in (0.0, 0.0027, 0.000034, 0.5)] == ["0.00 %", "0.27 %", "0.0034 %", "50.00 %"]


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_methods_beside_lora_have_rows_of_their_own(tiny_backbone):
    from search_spaces.configuration import Configuration

    plan = {
        "schema": "autopeft.configuration/1",
        "layers": [
            {"feed_forward": {"serial": {"size": 3, "scaling": 1.0}}, "attention": {"prefix": {"length": 6}}},
            {},
        ],
        "training": {"learning_rate": 1e-3},
    }
    sheet = text_sheet(Configuration.from_json(plan), tiny_backbone)
    rows = {line.split("  ")[0].strip(): line for line in sheet.splitlines()}
    assert rows["feed_forward serial"].split()[2:] == ["3", "·", "3"]
    assert rows["attention prefix"].split()[2:] == ["6", "·", "6"]
    assert "query" not in rows
