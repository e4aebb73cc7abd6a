"""The diff map: what differs, which way, and that it can be read by all."""

import re

import pytest

from autopeft.errors import ConfigurationError
from autopeft.score_sheet import contrast_map, html_contrast, html_sheet, svg_sheet, text_contrast
from autopeft.score_sheet.contrast import COLOURS, Contrast
from autopeft.score_sheet.strips import Strip, by_layer
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.lora import Lora


def plan(*ranks, site="query"):
    rows = (LayerPlan((Placement(site, Lora(rank, 2.0 * rank)),) if rank else ()) for rank in ranks)
    return Configuration(tuple(rows), Training(1e-3))


def test_a_pair_says_which_way_and_how_far(tiny_backbone):
    found = contrast_map({"a": plan(4, 1), "b": plan(16, 0)}, tiny_backbone)
    assert found.roles == ("query",)
    assert [cell.doublings for cell in found.rows[0]] == [2, -1]
    assert [cell.text for cell in found.rows[0]] == ["4→16", "1→·"]
    assert found.differing == 2
    assert text_contrast(found) == "  query  0: 4→16   1: 1→·"


def test_three_say_how_far_apart_they_are(tiny_backbone):
    found = contrast_map({"a": plan(4, 1), "b": plan(1, 1), "c": plan(8, 1)}, tiny_backbone)
    first, second = found.rows[0]
    assert (first.text, first.doublings, second.is_equal) == ("4 1 8", 3, True)


def test_another_module_counts_as_a_row_of_its_own(tiny_backbone):
    found = contrast_map({"a": plan(4, 4), "b": plan(4, 4, site="value")}, tiny_backbone)
    assert found.roles == ("query", "value")
    assert found.differing == 4


def test_equal_plans_say_so(tiny_backbone):
    assert "same size" in text_contrast(contrast_map({"a": plan(1, 1), "b": plan(1, 1)}, tiny_backbone))


@pytest.mark.parametrize("count", [1, 5])
def test_two_to_four_are_compared(tiny_backbone, count):
    with pytest.raises(ConfigurationError, match="2 to 4"):
        contrast_map({str(index): plan(1, 1) for index in range(count)}, tiny_backbone)


def test_the_map_is_a_table_with_headings_and_escapes_names(tiny_backbone):
    html = html_contrast(contrast_map({"<a>": plan(4, 1), "b": plan(16, 0)}, tiny_backbone), ["<a>", "b"])
    assert "<a>" not in html
    assert html.count('scope="row"') == 1
    assert 'class="more2"' in html
    assert 'class="less1"' in html
    assert 'title="layer 0 query: &lt;a&gt; 4, b 16"' in html


def luminance(colour):
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_shade_has_contrast_aa_in_both_themes():
    for fills, inks in COLOURS:
        for fill, ink in zip(fills, inks, strict=True):
            high, low = sorted((luminance(fill), luminance(ink)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (fill, ink)


def test_nothing_to_one_is_one_doubling():
    assert Contrast((0, 1), "").doublings == 1
    assert Contrast((None, None), "").text == ""


@pytest.mark.parametrize(
    ("data", "values"),
    [
        ([0.5, -1], (0.5, -1.0)),
        ({"0": 1.0, "1": 2.0}, (1.0, 2.0)),
        ({"1": 2.0}, (None, 2.0)),
        ([[9, 9], [1, 2]], (1.0, 2.0)),
        ({"scores": [1, 2]}, (1.0, 2.0)),
        ([{"load": 0.5}, {"load": 1.5}], (0.5, 1.5)),
        ([1, 2, 3], None),
        ("ab", None),
        (None, None),
        ([float("nan"), "x"], None),
        ({}, None),
    ],
)
def test_a_strip_is_made_of_a_value_a_layer(data, values):
    assert by_layer(data, 2) == values


def test_bars_stand_on_the_lowest_value_below_zero():
    assert Strip("s", (-1.0, 0.0, 1.0)).heights == (0.0, 0.5, 1.0)
    assert Strip("s", (None, 2.0)).heights == (0.0, 1.0)
    assert Strip("s", (0.0, 0.0)).heights == (0.0, 0.0)


def test_what_a_trial_learned_stands_in_the_sheet(tiny_backbone):
    sheet = plan(4, 1)
    details = {"importance": [0.25, 0.75], "unknown": {"x": 1}}
    html = html_sheet(sheet, tiny_backbone, details=details)
    assert 'title="layer 1: importance 0.75"' in html
    assert "layer 1: importance 0.75" in svg_sheet(sheet, tiny_backbone, details=details)
    assert "importance" not in html_sheet(sheet, tiny_backbone)


@pytest.mark.parametrize(("count", "style"), [(6, "wide"), (24, "close"), (40, "narrow"), (96, "bare")])
def test_sheets_of_any_depth_have_every_number(deep_backbone, count, style):
    backbone = deep_backbone(count)
    html = html_sheet(uniform(backbone, ("query",), Lora(8, 16.0), 1e-3), backbone)
    assert f'class="score-sheet {style}"' in html
    assert len(re.findall(r"<span>8</span></td>", html)) >= count
    assert html.count('<th scope="col">') == count


@pytest.fixture
def deep_backbone():
    from search_spaces.backbone import Backbone, ModuleShape

    def make(count):
        layers = tuple((ModuleShape("query", f"layer.{index}.query", 8, 8),) for index in range(count))
        return Backbone("deep", "bert", 8, 1_000_000, layers)

    return make
