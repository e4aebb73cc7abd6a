"""Rows that are conversations: two forms, tools and system turns, and what is said of rows that cannot be used."""

import json
import math

import pytest

from autopeft.errors import TaskError
from autopeft.tasks import TaskKind, TaskSpec, load_task, training_defaults
from autopeft.tasks.defaults import LONGEST_CHAT
from autopeft.tasks.templates import CHAT_TEMPLATES, read_template, template_text


def chat(asked="hi", said="ho"):
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}


def sharegpt(*values, speakers=("human", "gpt")):
    return {"conversations": [{"from": speakers[n % 2], "value": value} for n, value in enumerate(values)]}


@pytest.fixture
def load(write, tmp_path):
    """Writes rows as training rows and loads the task."""

    def loaded(rows, suffix="jsonl", **fields):
        return load_task(TaskSpec(str(write(tmp_path / f"train.{suffix}", rows)), **fields))

    return loaded


def held(task, row=0):
    return json.loads(task.train.chats[row])


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_messages_are_known_by_their_column(load, suffix):
    task = load([chat(f"hi {n}", f"ho {n}") for n in range(20)], suffix)
    assert (task.kind, task.metric) == (TaskKind.CAUSAL_LM, "exact_match")
    assert (len(task.train), len(task.validation)) == (18, 2)
    assert held(task) == chat("hi 0", "ho 0")
    assert (task.train.texts[0], task.train.answers[0]) == ("hi 0", "ho 0")
    assert task.notes[0] == "columns: conversation=messages"


def test_sharegpt_rows_become_messages(load):
    task = load([sharegpt("hi", f"ho {n}", "so", "no") for n in range(20)])
    assert [message["role"] for message in held(task)["messages"]] == ["user", "assistant"] * 2
    assert held(task)["messages"][1]["content"].startswith("ho ")


def test_a_system_text_and_tools_stand_beside_a_conversation(load):
    schema = {"name": "sky", "parameters": {"type": "object"}}
    row = {**sharegpt("hi", "ho"), "system": "Be brief.", "tools": json.dumps([schema])}
    told = {"conversations": [{"from": "system", "value": "Be long."}, *row["conversations"]], "system": "Be brief."}
    task = load([row, told] * 10)
    by_system = {held(task, n)["messages"][0]["content"]: held(task, n) for n in range(len(task.train))}
    assert by_system["Be brief."]["tools"] == [{"type": "function", "function": schema}]
    assert "tools" not in by_system["Be long."]


def test_tool_calls_of_every_form_are_one(load):
    calls = [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "a", "arguments": {"x": 1}}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": '{"x": 1}'}}]},
        {"role": "assistant", "function_call": {"name": "a", "arguments": '{"x": 1}'}},
        {"from": "function_call", "value": '{"name": "a", "arguments": {"x": 1}}'},
    ]
    expected = [{"type": "function", "function": {"name": "a", "arguments": {"x": 1}}}]
    task = load([{"messages": [{"role": "user", "content": f"{n}"}, calls[n % 4]]} for n in range(20)])
    for row in range(len(task.train)):
        assert held(task, row)["messages"][1] == {"role": "assistant", "content": "", "tool_calls": expected}


def test_arguments_differ_from_row_to_row_without_nulls(load):
    def row(n, **arguments):
        call = {"type": "function", "function": {"name": "a", "arguments": arguments}}
        asked = {"role": "user", "content": f"{n}"}
        return {"messages": [asked, {"role": "assistant", "content": "", "tool_calls": [call]}]}

    for suffix in ("jsonl", "parquet"):
        task = load([row(n, **({"x": n} if n % 2 else {"y": "z"})) for n in range(20)], suffix)
        seen = [held(task, n)["messages"][1]["tool_calls"][0]["function"]["arguments"] for n in range(18)]
        assert {tuple(arguments) for arguments in seen} == {("x",), ("y",)}


def test_what_follows_the_last_assistant_turn_is_left_out(load):
    rows = [{"messages": [*chat(f"{n}")["messages"], {"role": "user", "content": "bye"}]} for n in range(20)]
    assert held(load(rows))["messages"][-1]["content"] == "ho"


def test_text_in_parts_is_joined(load):
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    rows = [{"messages": [{"role": "user", "content": parts}, chat()["messages"][1]]}] * 20
    assert held(load(rows))["messages"][0]["content"] == "hi"


def message(role="assistant", content="ho", **more):
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([{"content": "hi"}, message()], "message 1 has no role (its keys: content); expected role or from"),
        (
            [message("narrator"), message()],
            "message 1 has the role 'narrator'; expected one of system, developer, user",
        ),
        ([message("user"), message(content="  ")], "message 2 (assistant) is empty; expected a text or a tool call"),
        ([message("user"), {"role": "assistant"}], "message 2 (assistant) is empty"),
        ([message("user"), message("system")], "it has no assistant turn, so nothing is learned from it"),
        ([], "got []; expected a list of messages"),
        ([message("user", [{"type": "image", "url": "x"}]), message()], "(images are not read)"),
        ([message("user"), message(tool_calls=[{"type": "function"}])], "the tool call {'type': 'function'} has no na"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_number(load, bad, said):
    rows = [chat(), chat(), {"messages": bad}, *[chat()] * 8, {"messages": bad}]
    with pytest.raises(TaskError) as caught:
        load(rows)
    assert str(caught.value).startswith("rows 3, 12 of train.jsonl cannot be used; row 3: ")
    assert said in str(caught.value)
    assert str(caught.value).endswith("correct or remove the rows")


def test_a_conversation_is_found_by_the_name_that_the_user_gives(load):
    rows = [{"talk": chat()["messages"], "n": n} for n in range(20)]
    assert load(rows, text="talk").train.chats is not None
    with pytest.raises(TaskError, match="no column"):
        load(rows)


def test_long_answers_are_ranked_by_likelihood_and_options_are_refused(load):
    rows = [chat(f"{n}", "many words " * 8) for n in range(20)]
    assert load(rows).metric == "likelihood"
    with pytest.raises(TaskError, match="conversations have no options to choose from"):
        load(rows, metric="option_accuracy")


def test_conversations_may_be_longer_than_other_rows(load):
    task = load([chat("word " * 3000, "yes") for _ in range(20)])
    assert training_defaults(task).max_length == LONGEST_CHAT
    turns = [{"messages": chat(f"hi {n}")["messages"] * 20} for n in range(20)]
    assert training_defaults(load(turns)).max_length == 16 * math.ceil((1.5 * (60 + 5 * 40) + 4) / 16)


def test_the_template_is_part_of_the_hash_and_of_the_study(load, tmp_path):
    rows = [chat(f"{n}") for n in range(20)]
    task = load(rows)
    assert task.laid_out_by("a").data_sha256 != task.laid_out_by("b").data_sha256 != task.data_sha256
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages }}")
    given = load(rows, chat_template=str(file))
    file.write_text("{{ changed }}")
    assert TaskSpec.from_json(given.spec.to_json()).chat_template == given.chat_template == "{{ messages }}"
    assert load_task(given.spec).chat_template == "{{ messages }}"
    assert load(rows, chat_template="plain").chat_template == CHAT_TEMPLATES["plain"]


def test_a_template_that_is_none_is_refused(load, tmp_path):
    with pytest.raises(TaskError, match="chat template 'chatlm': expected one of chatml, headings, plain, or a file"):
        load([chat()] * 20, chat_template="chatlm")
    empty = tmp_path / "empty.jinja"
    empty.write_text("no template")
    with pytest.raises(TaskError, match="it holds no Jinja"):
        read_template(str(empty))
    with pytest.raises(TaskError, match="the rows are no conversations"):
        load([{"prompt": "a", "completion": f"{n}"} for n in range(20)], chat_template="plain")
    with pytest.raises(TaskError, match="aspects, which holds no conversations"):
        load_task(TaskSpec("aspects", chat_template="plain"))
    assert template_text("plain") == CHAT_TEMPLATES["plain"]
