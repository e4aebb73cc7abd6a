"""Fresh seeds and the verdict, as the pages tell them."""

from dataclasses import replace

import pytest

from autopeft.confirming import confirmed, numbers
from autopeft.ruling import ruling_lines
from autopeft.standing import standing
from autopeft.store import Store
from autopeft.store.overlook import Overlook
from dashboard import picks, queries, selection
from dashboard.views.health import check

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_without_fresh_seeds_the_overview_says_how_to_get_a_verdict(make_record, open_page, shown):
    make_record(count=12, finished=19)
    assert "verdict: none yet" in shown(open_page("overview"))
    assert "autopeft confirm aspects-1 trains front and control again" in shown(open_page("overview"))


def test_the_overview_tells_the_verdict_that_the_command_tells(
    make_record, confirm, address, measured, open_page, shown
):
    study = make_record(count=12, finished=19, confirmations=2)
    asked = confirm(study, 1)
    assert f"Of {asked} runs of front and control with fresh seeds 1 have ended" in shown(open_page("overview"))
    with Store.open(address) as store:
        for _ in range(asked - 1):
            order = store.lease("w0", study.name)
            store.report(order.trial_id, order.attempt, measured(order))
        trials = store.trials(study.name)
    board, text = queries.board(address, study.name), shown(open_page("overview"))
    with Overlook.open(address) as reader:
        found = confirmed(study, trials, standing(study, trials), reader.marks(study.name, numbers(trials)))
    for line in ruling_lines(study, found):
        assert line.strip() in text
    assert "95 % interval" in text
    assert picks.again(board, address) is picks.again(board, address), "computed once a revision"


def test_what_confirms_is_nowhere_a_trial_of_its_own(make_record, confirm, address, open_page, shown):
    study = make_record(count=12, finished=19, confirmations=1)
    before, health = queries.board(address, study.name), open_page("health")
    found = picks.members(before, address), check(before, address, 0).observed.tolist()
    again = confirm(study)
    after = queries.board(address, study.name)
    assert len(after.complete) == len(before.complete) + again
    assert after.points.equals(before.points)
    assert [one.values for one in picks.members(after, address)] == [one.values for one in found[0]]
    assert check(after, address, 0).observed.tolist() == found[1]
    assert set(picks.with_errors(after, address)) == set(picks.with_errors(before, address))
    assert {after.kind(one) for one in after.complete[-again:]} == {"confirmation"}
    last = after.complete[-1].number
    assert last not in selection.listed(after)
    assert "for the verdict, and is no point of its own" in shown(open_page("trial", trial=last))
    assert "Trained again with fresh seeds" in shown(open_page("trial", trial=after.front[-1].number))
    told = shown(open_page("health"))
    assert "Nothing: 12 searched trials, 12 different plans." in told
    assert "Another seed moves accuracy by" in told
    assert "No plan has been repeated" in shown(health)


def test_the_front_page_shows_fresh_means_and_odds_beside_what_chose_the_members(
    make_record, confirm, address, open_page
):
    from dashboard import picks
    from dashboard.figures.front import View
    from dashboard.views.front import table

    study = make_record(count=12, finished=19, confirmations=2)
    view = View("trainable_parameters", "accuracy")
    assert "fresh" not in table(queries.board(address, "aspects-1"), view, "Front")
    confirm(study)
    board = queries.board(address, "aspects-1")
    rows = table(board, view, "Front").set_index("trial")
    again = picks.again(board, address)
    for one in again.front:
        assert rows.loc[one.number, "fresh"] == one.quality.mean
        assert rows.loc[one.number, "error"] == one.quality.error
        assert rows.loc[one.number, "on_front"] == again.memberships[one.number]
    control = table(board, view, "Control")
    assert "fresh" in control and "on_front" not in control
    assert "fresh seeds" in str(open_page("front").dataframe[0].proto)


def test_the_bootstrap_runs_once_for_the_same_fresh_runs(make_record, confirm, address, monkeypatch):
    from dashboard import picks

    study = make_record(count=12, finished=19, confirmations=1)
    confirm(study)
    board, calls = queries.board(address, "aspects-1"), []
    real = picks.confirmed

    def counted(*given):
        calls.append(1)
        return real(*given)

    monkeypatch.setattr(picks, "confirmed", counted)
    monkeypatch.setattr(picks, "_AGAIN", {})
    later = replace(board, revision=board.revision + 1)
    assert picks.again(board, address) is picks.again(later, address)
    assert len(calls) == 1


def test_before_the_target_the_search_is_said_to_confirm_by_itself(make_record, open_page, shown):
    make_record(count=12, finished=16, confirmations=1)
    said = shown(open_page("overview"))
    assert "when the search has reached its target, it trains front and control again with 1 fresh seed" in said
    assert "autopeft confirm" not in said
