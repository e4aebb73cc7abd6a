"""``autopeft report``: one file that needs neither server nor network, whatever state the study is in."""

import json
import re
from html import escape
from html.parser import HTMLParser

import pytest

from autopeft.asking import missing_references
from autopeft.confirming import missing
from autopeft.standing import standing
from autopeft.store import Store
from autopeft.study import PARAMETERS, Direction, FrontRecord, Measurement, Objective, Origin, Proposal
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora


@pytest.fixture
def record(tmp_path, make_study, tiny_backbone):
    """Writes a study whose first ``finished`` of five trials are measured; the last is of the control."""

    def make(finished=5, **fields):
        study = make_study(**fields)
        plans = [uniform(tiny_backbone, ("query",), Lora(rank, 2.0), 1e-3) for rank in (1, 2, 4, 8)]
        proposals = [Proposal(plan, Origin.MODEL) for plan in plans]
        control = uniform(tiny_backbone, ("query", "value"), Lora(1, 2.0), 1e-3)
        proposals.append(Proposal(control, Origin.CONTROL, "LoRA r=1 query+value"))
        with Store.open(f"sqlite:///{tmp_path}/autopeft.db", create=True) as store:
            store.create_study(study)
            store.enqueue(study.name, store.acquire_driver(study.name, "test"), proposals)
            for right, cost in ((60, 32), (80, 64), (70, 128), (90, 256), (75, 64))[:finished]:
                order = store.lease("w", study.name)
                values = {"accuracy": right / 100, PARAMETERS: cost, "loss": 0.3, "train_seconds": 100 / cost}
                marks = tuple([1] * right + [0] * (100 - right))
                details = {"importance": {"importance": [0.2, 0.8]}}
                measured = Measurement(0, values | {"evaluate_seconds": 0.5}, correct=marks, details=details)
                store.report(order.trial_id, order.attempt, measured)
                store.record_front(study.name, FrontRecord((), right / 200, order.number + 1, 2.0))
        return study

    return make


class Strict(HTMLParser):
    """Notes tags, and fails where one is closed that is not open."""

    VOID = frozenset({"meta", "br", "circle", "path"})

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def parsed(text):
    page = Strict()
    page.feed(text)
    assert page.open == []
    return page


def test_the_page_holds_front_sheets_verdict_and_provenance(autopeft, record, tmp_path):
    study = record()
    code, out, err = autopeft("report", study.name, "-o", "deep/report.html")
    assert (code, out, err) == (0, f"{study.name} in deep/report.html\n", "")
    text = (tmp_path / "deep" / "report.html").read_text()
    page = parsed(text)
    assert page.tags.count("circle") >= 4
    assert text.count('id="trial-') == 3
    assert "0.9000 ± 0.0302" in text
    assert "verdict: none yet" in text
    assert f"autopeft confirm {study.name} trains front and control again" in text
    assert "LoRA" in text
    assert study.model.sha256 in text
    assert "importance 0.8" in text
    assert {"#trial-0", "#trial-1", "#trial-3"} <= set(page.links)


def test_what_fresh_seeds_say_is_the_verdict_and_no_point(autopeft, record, tmp_path):
    study = record(name="tiny-1", confirmations=2)
    autopeft("report", "-o", "before.html")
    with Store.open(f"sqlite:///{tmp_path}/autopeft.db") as store:
        trials = store.trials(study.name)
        proposals = missing(study, trials, standing(study, trials))
        store.enqueue(study.name, store.acquire_driver(study.name, "test"), proposals)
        for right in (50, 66, 67, 66) * 2:
            order = store.lease("w", study.name)
            cost = trials[[one.digest for one in trials].index(order.configuration.digest)].values[PARAMETERS]
            values = {"accuracy": right / 100, PARAMETERS: cost, "loss": 0.3, "train_seconds": 1.0}
            marks = tuple([1] * right + [0] * (100 - right))
            store.report(
                order.trial_id, order.attempt, Measurement(0, values | {"evaluate_seconds": 0.5}, correct=marks)
            )
    autopeft("report", "-o", "after.html")
    before, after = ((tmp_path / name).read_text() for name in ("before.html", "after.html"))
    parsed(after)
    lines = autopeft("front")[1].splitlines()
    lines = [line.strip() for line in lines[[line.startswith("verdict: ") for line in lines].index(True) :]]
    assert len(lines) > 2
    assert [f"<p>{escape(line)}</p>" in after for line in lines] == [True] * len(lines)
    assert "nothing here shows that a search was needed: plain LoRA (trial 4, accuracy 0.6600)" in after
    assert "verdict: none yet" not in after

    def picture(text):
        return text[text.index("<h2>Front</h2>") : text.index("<h2>Verdict</h2>")]

    assert re.findall("<circle[^>]*>", picture(after)) == re.findall("<circle[^>]*>", picture(before))
    assert "among 5 trials" in picture(after)
    assert ">0.9000 ±" in after
    heading = "<th scope=col>with fresh seeds</th>"
    assert heading in after and heading not in before
    control = after[after.index("<h2>Control</h2>") :]
    assert "LoRA r=1 query+value" in control and ">0.6600 ±" in control[: control.index("</table>")]


def test_nothing_is_fetched_and_nothing_runs(autopeft, record, tmp_path):
    record()
    autopeft("report", "-o", "r.html")
    text = (tmp_path / "r.html").read_text()
    page = parsed(text)
    assert "script" not in page.tags
    assert not {"img", "link", "iframe", "object", "embed"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\(\s*['\"]?(http|//)|@import", text)
    assert "default-src 'none'" in text


def test_what_the_record_says_is_escaped(autopeft, record, tmp_path):
    record(task_name="<script>alert(1)</script>", environment={"host": "<b>"})
    autopeft("report", "-o", "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    parsed(text)


@pytest.mark.parametrize("finished", [0, 1, 4])
def test_any_state_of_a_study_makes_a_page(autopeft, record, tmp_path, finished):
    record(finished)
    assert autopeft("report", "-o", "r.html")[0] == 0
    text = (tmp_path / "r.html").read_text()
    parsed(text)
    assert ("nothing to judge yet" in text) == (finished == 0)
    assert ("nothing can be judged yet" in text) == (finished in (1, 4))


def test_three_objectives_make_a_page(autopeft, record, tmp_path):
    costs = (PARAMETERS, "train_seconds")
    objectives = (
        Objective("accuracy", Direction.MAXIMISE),
        *(Objective(name, Direction.MINIMISE) for name in costs),
    )
    record(objectives=objectives)
    assert autopeft("report", "--json")[0] == 0
    text = (tmp_path / "tiny-1.html").read_text()
    parsed(text)
    assert "train seconds" in text


def test_json_names_the_file_and_an_earlier_report_is_replaced(autopeft, record, tmp_path):
    study = record()
    for _ in range(2):
        code, out, _ = autopeft("report", "--json")
        assert code == 0
        assert json.loads(out) == {"schema": "autopeft.report/1", "study": study.name, "file": "tiny-1.html"}
    assert [path.name for path in tmp_path.glob(".tiny-1*")] == []


def test_what_is_no_report_is_never_replaced(autopeft, record, tmp_path):
    record()
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = autopeft("report", "-o", "notes.txt")
    assert (code, "no HTML file" in err) == (2, True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_said(autopeft, record, tmp_path):
    record()
    (tmp_path / "file").touch()
    code, _, err = autopeft("report", "-o", "file/page.html")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: output file/page.html: cannot be written: ")


def test_a_study_that_is_not_there_is_named(autopeft, record):
    record()
    code, _, err = autopeft("report", "gone")
    assert (code, "no study 'gone'" in err) == (3, True)
    assert autopeft("report", "a", "--study", "b")[0] == 2


def test_references_stand_in_a_table_of_their_own(autopeft, record, tmp_path):
    study = record(references=("full",))
    with Store.open(f"sqlite:///{tmp_path}/autopeft.db") as store:
        proposals = missing_references(study, store.trials(study.name))
        store.enqueue(study.name, store.acquire_driver(study.name, "test"), proposals)
        order = store.lease("w", study.name)
        values = {"accuracy": 0.97, PARAMETERS: 10**7, "loss": 0.1, "train_seconds": 9.0, "evaluate_seconds": 0.5}
        store.report(order.trial_id, order.attempt, Measurement(0, values, correct=(1,) * 97 + (0,) * 3))
    assert autopeft("report", "-o", "found.html")[0] == 0
    page = (tmp_path / "found.html").read_text()
    section = page[page.index("<h2>References</h2>") :]
    assert "full fine-tuning" in section and "0.97" in section
    assert "full fine-tuning 0.9700" in page[: page.index("<h2>References</h2>")]  # a line across the picture
    code, out, _ = autopeft("front", "--json")
    assert code == 0
    assert [one["label"] for one in json.loads(out)["references"]] == ["full fine-tuning"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["references", "--reference", "lora"], 2, "reference 'lora': expected some of serial, parallel, prefix"),
        (["search", "--reference", "fool", "--dry-run"], 2, "reference 'fool'"),
        (["references", "nope"], 3, "no study 'nope'"),
    ],
)
def test_what_cannot_be_a_reference_is_said(autopeft, record, arguments, code, message):
    record()
    ended, _, error = autopeft(*arguments)
    assert (ended, message in error) == (code, True)


def test_all_adapters_are_references_and_full_comes_on_top(autopeft):
    _, out, _ = autopeft("search", "--references", "--reference", "full", "--print-config", "--json")
    assert json.loads(out)["settings"]["references"] == "serial,parallel,prefix,ia3,mola,full"
