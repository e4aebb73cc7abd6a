"""Where the loss of a conversation lies, token by token, against masks written by hand: ⟦what is learned⟧."""

import json
import re

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from autopeft.adapters.turns import ChatTemplate
from autopeft.errors import TaskError
from autopeft.tasks import Split
from autopeft.tasks.templates import CHAT_TEMPLATES
from workers.answers import IGNORED, encode_answers
from workers.chats import cut

CPU = torch.device("cpu")
NAMES = ("<begin>", "<end>", "<pad>", "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def tokenizer():
    """A token for each letter, and one for each of NAMES."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<begin>",
        eos_token="<end>",
        pad_token="<pad>",
        additional_special_tokens=list(NAMES[3:]),
    )


def unmarked(template):
    """The template without its {% generation %}."""
    return re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)


BRACKETS = """{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'user' %}{{- '[ASK] ' ~ message.content ~ ' [/ASK]' }}
{%- elif message.role == 'assistant' %}{{- ' ' ~ message.content | trim ~ eos_token }}
{%- else %}{{- raise_exception('no turns of ' ~ message.role ~ ' here') }}{%- endif %}
{%- endfor %}"""
"""Knows no header before an answer."""

THINKER = """{%- for message in messages %}
{{- '<|im_start|>' ~ message.role ~ '\n' }}
{%- if message.role == 'assistant' and loop.last %}{{- '<think></think>' }}{%- endif %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}{{- 'call ' ~ call.function.name }}{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
"""Sets an empty thought before the last answer alone, as templates of reasoning models do."""

ASKS_TO_THINK = THINKER.replace("<think></think>", "").replace("assistant\\n'", "assistant\\n<think>'")
"""Asks for a thought that the answers in the rows do not have."""

POLITE = """{%- if messages[0].role != 'system' %}{{- 'system: Be kind.\n' }}{%- endif %}
{%- for message in messages %}{{- message.role ~ ': ' ~ message.content ~ '\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}"""
"""Has a system turn of its own, and ends a turn with a line break."""

TEMPLATES = {
    **CHAT_TEMPLATES,
    **{f"{name}, unmarked": unmarked(text) for name, text in CHAT_TEMPLATES.items()},
    "brackets": BRACKETS,
    "thinker": THINKER,
    "asks to think": ASKS_TO_THINK,
    "polite": POLITE,
}


def turns(*contents):
    """User and assistant in turn; a pair names another speaker."""
    speakers = ["user", "assistant"] * len(contents)
    return [
        {"role": speaker, "content": content} if isinstance(content, str) else content
        for speaker, content in zip(speakers, contents, strict=False)
    ]


def call(name, content="", **arguments):
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": content, "tool_calls": [{"type": "function", "function": function}]}


SYSTEM = {"role": "system", "content": "Be brief."}
WEATHER = [{"role": "user", "content": "Rain?"}, call("sky", at="Rome"), {"role": "tool", "content": "sun"}]
SKY = [{"type": "function", "function": {"name": "sky"}}]
LISTED = 'Tools that may be called, one JSON schema a line; a call is {"name": …, "arguments": {…}}:\n'
SKY_LINE = '{"type": "function", "function": {"name": "sky"}}'

CONVERSATIONS = [
    ("plain", turns("hi", "ho"), None, "<begin>user: hi\nassistant: ⟦ho<end>⟧"),
    ("plain, unmarked", turns("hi", "ho"), None, "<begin>user: hi\nassistant: ⟦ho<end>⟧"),
    ("headings", turns("hi", "ho"), None, "<begin>### user:\nhi\n\n### assistant:\n⟦ho<end>⟧"),
    (
        "chatml",
        turns("hi", "ho"),
        None,
        "<begin><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦ho<|im_end|>⟧",
    ),
    (
        "chatml, unmarked",
        turns("hi", "ho", "so", "no"),
        None,
        "<begin><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦ho<|im_end|>⟧\n"
        "<|im_start|>user\nso<|im_end|>\n<|im_start|>assistant\n⟦no<|im_end|>⟧",
    ),
    (
        "plain",
        [SYSTEM, *turns("a", "b", "c", "d", "e", "f")],
        None,
        "<begin>system: Be brief.\nuser: a\nassistant: ⟦b<end>⟧\nuser: c\nassistant: ⟦d<end>⟧\n"
        "user: e\nassistant: ⟦f<end>⟧",
    ),
    (
        "plain, unmarked",
        [SYSTEM, *turns("a", "b", "a", "b")],
        None,
        "<begin>system: Be brief.\nuser: a\nassistant: ⟦b<end>⟧\nuser: a\nassistant: ⟦b<end>⟧",
    ),
    (
        "plain",
        [*WEATHER, {"role": "assistant", "content": "No."}],
        None,
        '<begin>user: Rain?\nassistant: ⟦{"name": "sky", "arguments": {"at": "Rome"}}<end>⟧\ntool: sun\n'
        "assistant: ⟦No.<end>⟧",
    ),
    (
        "headings, unmarked",
        WEATHER[:2],
        None,
        '<begin>### user:\nRain?\n\n### assistant:\n⟦{"name": "sky", "arguments": {"at": "Rome"}}<end>⟧',
    ),
    (
        "plain, unmarked",
        [{"role": "user", "content": "Rain?"}, call("sky", "Let me see.", at="Rome")],
        None,
        '<begin>user: Rain?\nassistant: ⟦Let me see.\n{"name": "sky", "arguments": {"at": "Rome"}}<end>⟧',
    ),
    (
        "plain with tools",
        [SYSTEM, *WEATHER, {"role": "assistant", "content": "No."}],
        None,
        f"<begin>system: {LISTED}{SKY_LINE}\nsystem: Be brief.\nuser: Rain?\n"
        'assistant: ⟦{"name": "sky", "arguments": {"at": "Rome"}}<end>⟧\ntool: sun\nassistant: ⟦No.<end>⟧',
    ),
    ("brackets", turns("hi", "ho"), None, "<begin>[ASK] hi [/ASK]⟦ ho<end>⟧"),
    (
        "brackets",
        turns("hi", " ho\n", "so", "no"),
        None,
        "<begin>[ASK] hi [/ASK]⟦ ho<end>⟧[ASK] so [/ASK]⟦ no<end>⟧",
    ),
    (
        "thinker",
        turns("hi", "ho", "so", "no"),
        None,
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦ho<|im_end|>⟧\n"
        "<|im_start|>user\nso<|im_end|>\n<|im_start|>assistant\n⟦<think></think>no<|im_end|>⟧",
    ),
    (
        "thinker",
        [*WEATHER, {"role": "assistant", "content": "No."}],
        None,
        "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n⟦call sky<|im_end|>⟧\n"
        "<|im_start|>tool\nsun<|im_end|>\n<|im_start|>assistant\n⟦<think></think>No.<|im_end|>⟧",
    ),
    (
        "asks to think",
        turns("hi", "ho"),
        None,
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦ho<|im_end|>⟧",
    ),
    (
        "polite",
        turns("hi", "ho", "so", "no"),
        None,
        "system: Be kind.\nuser: hi\nassistant: ⟦ho\n⟧user: so\nassistant: ⟦no\n⟧",
    ),
    ("plain", turns("hi", "ho", "so", "no"), 24, "<begin>user: so\nassistant: ⟦no<end>⟧"),
    ("plain", [SYSTEM, *turns("hi", "ho", "so", "no")], 28, "<begin>⟦ho<end>⟧\nuser: so\nassistant: ⟦no<end>⟧"),
    ("polite", turns("hi", "0123456789"), 6, " ⟦01234⟧"),
]


def rows_of(tokenizer, template, messages, max_length=512, tools=None):
    chat = json.dumps({"messages": messages} | ({"tools": tools} if tools else {}))
    split = Split(("…",), None, (0,), ("…",), chats=(chat,), numbers=(1,))
    return encode_answers(tokenizer, split, max_length, template=ChatTemplate(tokenizer, template))


def by_hand(tokenizer, marked):
    """Token ids and labels of a text whose learned parts stand between ⟦ and ⟧."""
    ids, labels = [], []
    for index, piece in enumerate(re.split("[⟦⟧]", marked)):
        tokens = tokenizer(piece, add_special_tokens=False)["input_ids"]
        ids += tokens
        labels += tokens if index % 2 else [IGNORED] * len(tokens)
    return ids, labels


@pytest.mark.parametrize(("name", "messages", "most", "marked"), CONVERSATIONS)
def test_labels_are_on_what_the_assistant_says_alone(tokenizer, name, messages, most, marked):
    tools = SKY if name.endswith("with tools") else None
    template = TEMPLATES[name.removesuffix(" with tools")]
    rows = rows_of(tokenizer, template, messages, most or 512, tools)
    inputs, labels = rows.batch(np.array([0]), CPU)
    ids, expected = by_hand(tokenizer, marked)
    assert tokenizer.decode(inputs["input_ids"][0]) == re.sub("[⟦⟧]", "", marked)
    assert inputs["input_ids"][0].tolist() == ids
    assert labels[0].tolist() == expected
    assert rows.label_counts[0] == sum(label != IGNORED for label in expected)


def test_there_are_twenty_conversations():
    assert len(CONVERSATIONS) == 20
    assert sum(most is not None for _, _, most, _ in CONVERSATIONS) == 3


def test_the_prompt_of_a_conversation_ends_where_its_last_turn_begins(tokenizer):
    rows = rows_of(tokenizer, TEMPLATES["chatml"], [SYSTEM, *turns("hi", "ho", "so", "no")])
    prompt = tokenizer.decode(rows.prompts(np.array([0]), 512, CPU)["input_ids"][0])
    assert prompt.endswith("<|im_start|>user\nso<|im_end|>\n<|im_start|>assistant\n")
    assert rows.answers == ["no"]
    assert rows.end == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert rows_of(tokenizer, TEMPLATES["polite"], turns("hi", "ho")).end == tokenizer.eos_token_id


def test_tokens_that_do_not_fit_are_counted(tokenizer):
    rows = rows_of(tokenizer, TEMPLATES["plain"], turns("hi", "ho", "so", "no"), 24)
    whole = rows_of(tokenizer, TEMPLATES["plain"], turns("hi", "ho", "so", "no"))
    assert whole.truncation is None
    lost = int(whole.lengths[0]) - 24
    assert rows.truncation == {"rows": 1, "of": 1, "tokens": lost, "share": lost / whole.lengths[0]}
    assert rows.take(np.array([0, 0])).truncation["rows"] == 2


@pytest.mark.parametrize("lead", [0, 1])
@pytest.mark.parametrize("max_length", range(2, 32))
def test_a_row_that_is_cut_keeps_its_labels_on_the_same_tokens(lead, max_length):
    ids, spans = list(range(100, 130)), [(4, 8), (12, 20), (24, 30)]
    learned = {token for start, end in spans for token in ids[start:end]}
    row = cut(ids, spans, lead, max_length)
    assert len(row.ids) == min(max_length, 30)
    assert row.ids[:lead] == ids[:lead]
    labelled = [token for start, end in row.spans for token in row.ids[start:end]]
    assert labelled == [token for token in row.ids[1:] if token in learned]
    assert labelled[-1] == (129 if max_length > 6 else 122 + max_length)
    assert row.lost == 30 - len(row.ids)


def test_a_turn_of_weight_nought_is_read_and_not_learned(tokenizer):
    messages = turns("hi", {"role": "assistant", "content": "ho", "weight": 0}, "so", "no")
    for name in ("plain", "plain, unmarked"):
        _, labels = rows_of(tokenizer, TEMPLATES[name], messages).batch(np.array([0]), CPU)
        expected = by_hand(tokenizer, "<begin>user: hi\nassistant: ho<end>\nuser: so\nassistant: ⟦no<end>⟧")[1]
        assert labels[0].tolist() == expected
    with pytest.raises(TaskError, match=r"row 1 .'hi'.: the last assistant turn has weight 0"):
        rows_of(tokenizer, TEMPLATES["plain"], messages[:2])


COUNTS = "{%- for message in messages %}{{- messages | length ~ message.role ~ message.content }}{%- endfor %}"
FORGETS = "{%- for message in messages %}{{- message.role if message.role != 'assistant' }}{%- endfor %}"
SHORTENS = """{%- for message in messages %}{{- message.role ~ ':' }}
{{- message.content if loop.last or message.role == 'user' else '…' }}{%- endfor %}
{%- if add_generation_prompt %}{{- 'assistant:' }}{%- endif %}"""


@pytest.mark.parametrize(
    ("template", "messages", "said"),
    [
        (COUNTS, turns("hi", "ho", "so", "no"), "writes the messages before message 2 in another way when more follow"),
        (SHORTENS, turns("hi", "ho", "so", "no"), "writes message 2, the assistant's, in another way"),
        (FORGETS, turns("hi", "ho"), "leaves an assistant turn out"),
        (BRACKETS, [SYSTEM, *turns("hi", "ho")], "does not take it: no turns of system here; correct the row"),
        ("{% for message in messages %}", turns("hi", "ho"), "does not take it: Unexpected end of template"),
        ("{{ messages[0].content.secret() }}", turns("hi", "ho"), "does not take it: .*secret"),
    ],
)
def test_a_template_that_does_not_go_with_a_row_is_refused_with_the_rows_number(tokenizer, template, messages, said):
    with pytest.raises(TaskError, match=f"row 1 .*the chat template {said}"):
        rows_of(tokenizer, template, messages)
