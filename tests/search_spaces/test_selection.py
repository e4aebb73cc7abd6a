import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import ConfigurationError
from search_spaces.selection import Selection, cut, is_cut, kept_count, margins

SITES = ("query", "key", "value", "output", "up", "down")
matrices = st.integers(1, 5).flatmap(
    lambda layers: st.lists(st.floats(0, 1), min_size=6 * layers, max_size=6 * layers).map(
        lambda values: {(index // 6, SITES[index % 6]): value for index, value in enumerate(values)}
    )
)


@given(matrices, st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.6667, 0.75, 1.0]))
def test_a_row_keeps_the_next_whole_number_up_of_its_largest(scores, ratio):
    kept = cut(scores, ratio, "row")
    for layer in {layer for layer, _ in scores}:
        row = {entry: score for entry, score in scores.items() if entry[0] == layer}
        inside = [row[entry] for entry in row if entry in kept]
        outside = [row[entry] for entry in row if entry not in kept]
        assert len(inside) == max(1, math.ceil(ratio * 6 - 1e-9))
        assert not outside or min(inside) >= max(outside)


@given(matrices, st.floats(0.05, 1))
def test_the_global_cut_keeps_its_share_of_all(scores, ratio):
    assert len(cut(scores, ratio, "global")) == kept_count(ratio, len(scores))


def test_a_global_cut_may_leave_a_layer_empty():
    scores = {(0, "query"): 0.9, (0, "value"): 0.8, (1, "query"): 0.1, (1, "value"): 0.2}
    assert cut(scores, 0.5, "global") == {(0, "query"), (0, "value")}
    assert cut(scores, 0.5, "row") == {(0, "query"), (1, "value")}


def test_margins_are_those_between_the_last_kept_and_the_first_dropped():
    scores = {(0, "query"): 0.9, (0, "value"): 0.8, (1, "query"): 0.25, (1, "value"): 0.5}
    assert margins(scores, 0.5, "row") == pytest.approx([0.1, 0.25])
    assert margins(scores, 0.5, "global") == pytest.approx([0.3])
    assert margins(scores, 1.0, "row") == [None, None]


def test_a_selection_goes_through_json():
    chosen = Selection(0.25, "global", "softmax", 2, 0.1, 0.003, "continue")
    assert Selection.from_json(chosen.to_json()) == chosen


def test_the_search_leaves_a_step_to_train():
    assert [Selection(search_fraction=0.9).price(steps) for steps in (1, 2, 10, 100)] == [1, 1, 9, 90]
    assert Selection(search_fraction=0.01).search_steps(10) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ratio", 0),
        ("ratio", 1.1),
        ("ratio", "half"),
        ("scope", "column"),
        ("relaxation", "gumbel"),
        ("order", 3),
        ("order", True),
        ("search_fraction", 1),
        ("gate_rate", math.inf),
        ("weights", "keep"),
    ],
)
def test_what_is_no_selection_is_refused_by_name(field, value):
    with pytest.raises(ConfigurationError, match=f"selection, {field} .*expected"):
        Selection(**{field: value})


def test_an_unknown_field_is_refused():
    with pytest.raises(ConfigurationError, match="selection: it may have ratio"):
        Selection.from_json({"rank": 4})


def test_a_search_costs_no_more_than_it_is_paid_for():
    for order, passes in ((1, 1.85), (2, 4.4)):
        selection = Selection(search_fraction=0.3, order=order)
        assert selection.price(200) == 60
        assert abs(selection.search_steps(200) * passes - 60) <= passes / 2
    assert Selection(search_fraction=0.9).price(1) == Selection().search_steps(1) == 1


@pytest.mark.parametrize(("scope", "kept"), [("row", {(0, "a"), (1, "b")}), ("global", {(0, "a"), (0, "b")})])
def test_a_cut_keeps_as_many_as_its_ratio_says(scope, kept):
    entries = {(0, "a"), (0, "b"), (1, "a"), (1, "b")}
    assert is_cut(kept, entries, 0.5, scope)
    assert not is_cut(kept | {(1, "a")}, entries, 0.5, scope)
    assert not is_cut({(0, "a"), (9, "b")}, entries, 0.5, scope)
