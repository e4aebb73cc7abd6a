"""The front chart as a specification: what is drawn, where, and what can be picked."""

import pytest

from dashboard import figures, queries


@pytest.fixture
def snapshot(make_record, address):
    make_record(count=30, finished=37)
    return queries.snapshot(address, "aspects-1")


def spec(chart):
    return chart.to_dict()


def encodings(chart):
    return [layer["encoding"] for layer in spec(chart)["layer"]]


def test_every_measured_trial_is_one_point_and_the_head_alone_is_none(snapshot):
    frame = figures.points(snapshot)
    assert sorted(frame["trial"]) == [trial.number for trial in snapshot.complete if trial.number != 0]
    assert set(frame["kind"]) == {"front", "dominated", "control"}


def test_axes_have_titles_and_parameters_are_on_a_log_scale(snapshot):
    both = [encoding for encoding in encodings(figures.front_chart(snapshot)) if {"x", "y"} <= set(encoding)]
    for encoding in both:
        for axis in ("x", "y"):
            assert encoding[axis].get("title") or "value" in encoding[axis]
    marks = next(encoding for encoding in both if "tooltip" in encoding)
    assert marks["x"]["scale"]["type"] == "log"
    assert "accuracy" in marks["y"]["title"]


def test_the_step_line_rises_and_ends_at_the_budget(snapshot):
    chart = figures.front_chart(snapshot)
    line = next(layer for layer in chart.layer if getattr(layer.mark, "type", "") == "line")
    quality, cost = list(line.data["quality"]), list(line.data["cost"])
    assert quality == sorted(quality)
    assert cost == sorted(cost)
    assert cost[-1] == snapshot.study.budget.parameters


def test_points_are_picked_by_trial_and_the_chosen_one_is_marked(snapshot):
    number = snapshot.standing.front[0].number
    chart = figures.front_chart(snapshot, chosen=number)
    picks = [parameter for parameter in spec(chart)["params"] if parameter["name"] == figures.SELECTION]
    assert picks[0]["select"]["fields"] == ["trial"]
    assert list(chart.layer[-1].data["trial"]) == [number]
    assert figures.front_chart(snapshot).layer[-1].data.empty


def test_the_control_stands_as_labelled_diamonds(snapshot):
    frame = figures.points(snapshot)
    assert set(frame.loc[frame["kind"] == "control", "label"]) == {
        "r=1 q+v", "r=2 q+v", "r=4 q+v", "r=8 q+v", "r=1 all", "r=2 all",
    }  # fmt: skip


def test_a_chart_of_one_point_is_drawn(make_record, address):
    make_record("one", count=1, finished=2)
    chart = figures.front_chart(queries.snapshot(address, "one"), dark=True)
    low, high = next(e for e in encodings(chart) if "tooltip" in e)["y"]["scale"]["domain"]
    assert low < high


def test_the_chart_is_told_in_words(snapshot, make_record, address):
    text = figures.describe(snapshot)
    best = snapshot.standing.front[-1]
    assert f"{best.values['accuracy']:.4f}" in text
    make_record("empty")
    assert "no trial" in figures.describe(queries.snapshot(address, "empty"))


def test_the_table_shows_what_was_asked_best_first(snapshot):
    front = figures.table(snapshot, "Front")
    assert list(front["quality"]) == sorted(front["quality"], reverse=True)
    assert set(front["trial"]) == snapshot.front_numbers
    assert set(figures.table(snapshot, "Control")["label"]) >= {"LoRA r=1 query+value"}
    assert len(figures.table(snapshot, "All")) == len(snapshot.complete)


def test_log_ticks_are_round_and_inside():
    assert figures.log_ticks(700, 130_000) == [1000, 3000, 10_000, 30_000, 100_000]
    assert figures.log_ticks(9_000, 90_000) == [10_000, 20_000, 50_000]


@pytest.mark.parametrize(("theme", "page"), [(figures.LIGHT, "#ffffff"), (figures.DARK, "#0e1117")])
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
