"""Figures as specifications: valid Vega-Lite, what is drawn, where, which way is better, and what can be picked."""

import json
import warnings

import altair
import numpy as np
import pandas as pd
import pytest

from autopeft.health import Check
from autopeft.picking import Candidate
from autopeft.precision import Noise, estimate
from autopeft.study import PARAMETERS, Direction, Objective
from dashboard import picks, queries
from dashboard.board import short_labels
from dashboard.figures import health, progress, vega
from dashboard.figures.front import SELECTION, View, describe, front_chart, shown_points
from dashboard.figures.labels import placed
from dashboard.figures.thinning import MOST, thinned

VIEW = View(PARAMETERS, "accuracy")


@pytest.fixture
def board(make_record, address):
    make_record(count=30, finished=37)
    return queries.board(address, "aspects-1")


def valid(spec):
    """``spec`` with its tables as plain rows, held against Vega-Lite's schema."""
    plain = {
        **spec,
        "datasets": {name: json.loads(table.to_json(orient="records")) for name, table in spec["datasets"].items()},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        altair.Chart.from_dict({key: value for key, value in plain.items() if key != "$schema"})
    return plain


def drawn(spec, table, kind):
    return next(layer for layer in spec["layer"] if (layer["data"]["name"], layer["mark"]["type"]) == (table, kind))


def test_every_measured_trial_is_one_point_and_the_head_alone_is_none(board):
    assert sorted(board.points["trial"]) == [one.number for one in board.complete if one.number != 0]
    assert set(board.points["kind"]) == {"front", "dominated", "control"}
    assert len(valid(front_chart(board, VIEW, {}))["datasets"]["points"]) == len(board.points)


def test_axes_say_which_way_is_better_and_parameters_are_on_a_log_scale(board):
    spec = valid(front_chart(board, VIEW, {}))
    points = drawn(spec, "points", "point")["encoding"]
    assert points["x"]["scale"]["type"] == "log"
    assert points["x"]["title"] == ["trainable parameters (log scale)", "lower is better: left"]
    assert points["y"]["title"] == "accuracy · higher is better: up"
    assert points["color"]["legend"]
    assert not points["x"]["scale"]["reverse"]
    assert not points["y"]["scale"]["reverse"]


def test_up_and_left_is_better_whichever_way_the_objectives_go():
    values = pd.Series([1.0, 2.0])
    for direction, vertical, turned in (
        (Direction.MINIMISE, True, True),
        (Direction.MAXIMISE, True, False),
        (Direction.MINIMISE, False, False),
        (Direction.MAXIMISE, False, True),
    ):
        axis = vega.objective_axis(Objective("x", direction), values, "x", vertical=vertical)
        assert axis["scale"]["reverse"] is turned


def test_the_step_line_rises_and_ends_at_the_budget(board):
    line = front_chart(board, VIEW, {})["datasets"]["steps"]
    assert list(line["y"]) == sorted(line["y"])
    assert list(line["x"]) == sorted(line["x"])
    assert line["x"].iloc[-1] == board.study.budget.parameters


def test_points_are_picked_by_trial_and_the_chosen_one_is_marked(board):
    number = board.front[0].number
    spec = valid(front_chart(board, VIEW, {}, chosen=number))
    picked = drawn(spec, "points", "point")["params"][0]
    assert (picked["name"], picked["select"]["fields"]) == (SELECTION, ["trial"])
    assert len(spec["datasets"]["chosen"]) == 1
    assert "chosen" not in front_chart(board, VIEW, {})["datasets"]


def test_a_tighter_budget_shows_and_ranks_only_what_is_within(board):
    budget = int(board.points[PARAMETERS].median())
    points = shown_points(board, View(PARAMETERS, "accuracy", budget=budget))
    assert points[PARAMETERS].max() <= budget
    front = points[points["kind"] == "front"]
    assert set(front["trial"]) == {one.number for one in board.standing_within(budget).front}
    best = points[points["kind"].isin(("front", "dominated"))]["accuracy"].max()
    assert front["accuracy"].max() == best


def test_error_bars_stand_where_the_quality_is_shown_upwards(board, address):
    errors = picks.with_errors(board, address)
    tables = front_chart(board, VIEW, errors)["datasets"]
    assert len(tables["errors of the front"]) == len(board.front)
    assert len(tables["errors of the control"]) == 6
    assert (tables["errors of the front"]["y"] < tables["errors of the front"]["until"]).all()
    wide = Candidate(board.front[0].number, (), estimate([0.97], noise=Noise(0.5, 9)))
    [bar] = front_chart(board, VIEW, {wide.number: wide})["datasets"]["errors of the front"].to_dict("records")
    assert (bar["y"], bar["until"]) == (0.0, 1.0)
    turned = front_chart(board, View("accuracy", PARAMETERS), errors)
    assert not [name for name in turned["datasets"] if name.startswith("errors")]


AXIS = {"scale": {"type": "linear", "domain": [0.0, 1.0], "reverse": False}}


def places(*points, label="r=8 q+v", levels=()):
    table = pd.DataFrame([(x, y, label) for x, y in points], columns=["x", "y", "label"])
    named = pd.DataFrame([(y, f"head only {y:.4f}") for y in levels], columns=["y", "text"])
    found = placed(table, table, pd.DataFrame({"x": [0.0, 1.0], "y": [0.0, 0.0]}), named, AXIS, AXIS, 400)
    return list(zip(found["align"], found["dx"], found["dy"], strict=True))


def test_a_label_alone_stands_under_its_point():
    assert places((0.5, 0.5)) == [("center", 0, 16)]


def test_labels_of_points_that_are_close_stand_apart():
    under, beside = places((0.5, 0.5), (0.52, 0.5))
    assert under == ("center", 0, 16)
    assert beside[2] < under[2]


def test_a_label_stays_off_the_edge_of_the_front_and_inside_the_plot():
    [above] = places((0.5, 0.04))
    assert above[2] < 0
    [(align, dx, _)] = places((1.0, 0.5))
    assert (align, dx) == ("right", -10)


def test_a_label_stays_off_the_name_of_a_level():
    assert places((0.85, 0.5)) == [("center", 0, 16)]
    [(_, _, down)] = places((0.85, 0.5), levels=(0.43,))
    assert down <= 0


def test_the_control_stands_as_labelled_diamonds(board):
    labels = front_chart(board, VIEW, {})["datasets"]["labels of the control"]["label"]
    assert set(labels) == {"r=1 q+v", "r=2 q+v", "r=4 q+v", "r=8 q+v", "r=1 all", "r=2 all"}


def test_the_rate_that_most_of_the_control_share_goes_without_saying():
    labels = ["LoRA r=4 query+value at 0.001", "LoRA r=4 query+value at 0.003", "LoRA r=1 all linear at 0.003", None]
    assert short_labels(labels) == ["r=4 q+v at 0.001", "r=4 q+v", "r=1 all", ""]
    assert short_labels(["LoRA r=4 query+value at 0.001", "LoRA r=1 query+value at 0.01"])[0] == "r=4 q+v at 0.001"


def test_references_stand_beside_the_front_and_full_fine_tuning_as_a_line(make_record, address, compare):
    study = make_record(count=8, finished=15, references=("mola", "ia3", "full"))
    before = queries.board(address, "aspects-1")
    legend = drawn(front_chart(before, VIEW, {}), "points", "point")["encoding"]["color"]["legend"]
    assert "reference" not in legend["values"]
    assert (before.finished, before.is_over) == (15, False)  # the references are still to come
    compare(study)
    board = queries.board(address, "aspects-1")
    assert board.front_numbers == before.front_numbers and board.is_over
    assert before.expected == board.expected
    assert board.standing.box == before.standing.box
    errors = picks.with_errors(board, address)
    spec = valid(front_chart(board, VIEW, errors))
    labels = {row["label"] for row in spec["datasets"]["labels of the reference"]}
    assert {"MoLA 4×r=1 q+v", "IA3 all"} <= labels and "full fine-tuning" not in labels
    assert [row["text"].rsplit(" ", 1)[0] for row in spec["datasets"]["levels"]] == ["head only", "full fine-tuning"]
    assert len(spec["datasets"]["errors of the reference"]) == len(labels)
    points = shown_points(board, VIEW)
    assert points[points["kind"] == "reference"]["trainable_parameters"].max() <= study.budget.parameters


def test_a_third_objective_is_shown_as_size(make_record, address, three_objectives):
    make_record("three", count=12, finished=19, objectives=three_objectives)
    board = queries.board(address, "three")
    for view in (View(PARAMETERS, "accuracy", "train_seconds"), View("train_seconds", PARAMETERS, "accuracy")):
        spec = valid(front_chart(board, view, picks.with_errors(board, address)))
        assert drawn(spec, "points", "point")["encoding"]["size"]["title"]
        assert len({row["size"] for row in spec["datasets"]["points"]}) > 3


def test_a_chart_of_one_point_is_drawn(make_record, address):
    make_record("one", count=1, finished=2)
    spec = valid(front_chart(queries.board(address, "one"), VIEW, {}, dark=True))
    low, high = drawn(spec, "points", "point")["encoding"]["y"]["scale"]["domain"]
    assert low < high


def test_the_chart_is_told_in_words(board, make_record, address):
    best = board.front[-1]
    assert f"trial {best.number} is best in accuracy: {best.values['accuracy']:.4f}" in describe(board, VIEW)
    make_record("empty")
    assert "no searched trial" in describe(queries.board(address, "empty"), VIEW)


def test_many_points_are_thinned_and_say_for_how_many_they_stand():
    generator = np.random.default_rng(0)
    points = pd.DataFrame({"x": np.exp(generator.normal(10, 1, 20_000)), "y": generator.random(20_000)})
    few = thinned(points, "x", "y", (True, False))
    assert MOST / 2 < len(few) <= MOST
    assert few["stands_for"].sum() == 20_000
    assert list(thinned(points.head(10), "x", "y", (True, False))["stands_for"]) == [1] * 10


def test_equal_points_are_thinned_to_one():
    points = pd.DataFrame({"x": np.ones(MOST + 1), "y": np.ones(MOST + 1)})
    assert list(thinned(points, "x", "y", (True, False))["stands_for"]) == [MOST + 1]


@pytest.mark.parametrize("over", ["trials", "seconds"])
def test_the_hypervolume_stands_beside_the_controls(board, address, over):
    from autopeft.store import Store
    from autopeft.study import FrontRecord

    with Store.open(address) as store:
        for count in (10, 20):
            store.record_front("aspects-1", FrontRecord((7,), count / 100, count, count * 60.0))
    board = queries.board(address, "aspects-1")
    table = progress.volume_table(board, over)
    assert list(table[table["which"] == "front"]["hypervolume"]) == [0.1, 0.2]
    control = table[table["which"] == "control"]
    assert control["hypervolume"].iloc[-1] == pytest.approx(board.standing.control_hypervolume)
    assert control["hypervolume"].is_monotonic_increasing
    valid(progress.volume_chart(board, over))


def test_without_anything_measured_there_is_no_figure(make_record, address):
    make_record("empty", count=3)
    assert progress.volume_chart(queries.board(address, "empty"), "trials") is None
    assert progress.curve_chart((), 100) is None
    valid(progress.curve_chart(((1, 1.0),), 100, dark=True))


def test_predictions_and_calibration_are_drawn():
    values = np.linspace(0.5, 0.9, 12)
    check = Check(tuple(range(12)), values, values + 0.01, np.full(12, 0.02), 0.01)
    assert len(valid(health.prediction_chart(check, "accuracy"))["datasets"]["plans"]) == 12
    assert len(valid(health.calibration_chart(check, dark=True))["datasets"]["deciles"]) == 9


def test_log_ticks_are_round_and_inside():
    assert vega.log_ticks(700, 130_000) == [1000, 3000, 10_000, 30_000, 100_000]
    assert vega.log_ticks(9_000, 90_000) == [10_000, 20_000, 50_000]


@pytest.mark.parametrize(("theme", "page"), [(vega.LIGHT, "#ffffff"), (vega.DARK, "#0e1117")])
def test_marks_have_contrast_three_and_text_four_and_a_half(theme, page):
    assert theme.page == page
    assert min(contrast(colour, page) for colour in (*theme.kinds, theme.chosen)) >= 3
    assert min(contrast(colour, page) for colour in (theme.text, theme.kinds[2])) >= 4.5


def contrast(first, second):
    def luminance(colour):
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)
