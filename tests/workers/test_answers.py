"""Where the loss of a language model lies, token by token, and what truncation leaves."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autopeft.errors import TaskError
from autopeft.tasks import Split
from workers.answers import IGNORED, Sequences, encode_answers, join
from workers.training import answer_losses, loss_of, said_tokens

CPU = torch.device("cpu")


class Letters:
    """A tokenizer of letters: a is 10, b is 11, …; 1 begins a text, 2 ends it, 0 pads."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0

    def __init__(self, begins=True):
        self.begins = begins

    def __call__(self, texts, add_special_tokens=True, **_):
        if isinstance(texts, str):
            return {"input_ids": ([1] if self.begins and add_special_tokens else []) + self.ids(texts)}
        return {"input_ids": [self.ids(text) for text in texts]}

    @staticmethod
    def ids(text):
        return [ord(letter) - ord("a") + 10 for letter in text if letter.isalpha()]


def split(prompts, answers, options=None):
    return Split(tuple(prompts), None, (0,) * len(prompts), tuple(answers), options)


def test_loss_is_on_the_tokens_of_the_answer_and_its_end_alone():
    rows = encode_answers(Letters(), split(["abc", "a"], ["de", "d"]), 16)
    inputs, labels = rows.batch(np.array([0, 1]), CPU)
    assert inputs["input_ids"].tolist() == [[1, 10, 11, 12, 13, 14, 2], [1, 10, 13, 2, 0, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1] * 7, [1, 1, 1, 1, 0, 0, 0]]
    assert labels.tolist() == [
        [IGNORED, IGNORED, IGNORED, IGNORED, 13, 14, 2],
        [IGNORED, IGNORED, 13, 2, IGNORED, IGNORED, IGNORED],
    ]


def test_each_token_of_an_answer_is_predicted_by_the_one_before_it():
    labels = torch.tensor([[IGNORED, IGNORED, 3, 4], [IGNORED, 5, IGNORED, IGNORED]])
    logits = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    chances = logits.log_softmax(-1)
    expected = [-chances[0, 1, 3], -chances[0, 2, 4], -chances[1, 0, 5]]
    assert loss_of(logits, labels).item() == pytest.approx(sum(expected).item() / 3)
    sums = answer_losses(logits, labels, "none").sum(1)
    assert sums.tolist() == pytest.approx([(expected[0] + expected[1]).item(), expected[2].item()])


def test_the_loss_of_the_last_logits_is_that_of_all():
    labels = torch.tensor([[IGNORED, IGNORED, IGNORED, 3, 4], [IGNORED, IGNORED, IGNORED, 5, IGNORED]])
    logits = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    assert said_tokens(labels) == 3
    assert loss_of(logits[:, -3:], labels).item() == pytest.approx(loss_of(logits, labels).item())
    assert said_tokens(torch.tensor([0, 1])) == 0


def test_nothing_but_the_answer_moves_the_loss():
    labels = torch.tensor([[IGNORED, IGNORED, 3, 4]])
    logits = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss_of(logits, labels).backward()
    assert logits.grad.abs().sum(-1)[0].gt(0).tolist() == [False, True, True, False]


@given(
    lead=st.lists(st.just(1), max_size=1),
    prompt=st.integers(0, 40),
    answer=st.integers(1, 40),
    max_length=st.integers(2, 30),
    end=st.sampled_from([None, 2]),
)
def test_truncation_leaves_a_token_to_read_and_a_token_to_say(lead, prompt, answer, max_length, end):
    if not lead and not prompt:
        return
    asked, said = list(range(100, 100 + prompt)), list(range(200, 200 + answer))
    ids, start = join(lead, asked, said, max_length, end)
    whole = [*said, *([] if end is None else [end])]
    assert len(ids) <= max_length
    assert 1 <= start < len(ids)
    assert ids[start:] == whole[: len(ids) - start]
    assert ids[len(lead) : start] == asked[prompt - (start - len(lead)) :]
    if len(whole) <= max_length - 1:
        assert ids[start:] == whole


def test_a_long_prompt_loses_its_beginning_and_keeps_its_lead():
    assert join([1], [10, 11, 12, 13], [20, 21], 5, 2) == ([1, 13, 20, 21, 2], 2)
    assert join([1], [10, 11], [20, 21, 22, 23], 4, 2) == ([1, 20, 21, 22], 1)
    assert join([], [10, 11], [20, 21, 22, 23], 4, None) == ([11, 20, 21, 22], 1)


def test_plain_text_begins_with_a_token_and_has_no_end():
    for begins in (True, False):
        rows = encode_answers(Letters(begins), split([""], ["abc"]), 16)
        assert (rows.ids, rows.starts, rows.end) == ([[1, 10, 11, 12]], [1], None)


def test_options_follow_the_prompt_of_their_row():
    rows = encode_answers(Letters(False), split(["a", "b"], ["c", "d"], (("c", "cc"), ("e", "d"))), 16)
    assert rows.options.ids == [[10, 12, 2], [10, 12, 12, 2], [11, 14, 2], [11, 13, 2]]
    assert rows.option_counts == (2, 2)
    part = rows.take(np.array([1]))
    assert part.options.ids == [[11, 14, 2], [11, 13, 2]]
    assert (part.answers, part.labels.tolist(), len(part)) == (["d"], [0], 1)


def test_prompts_to_answer_are_padded_on_the_left():
    rows = Sequences([[1, 10, 11, 20], [1, 21]], [3, 1], 0)
    batch = rows.prompts(np.array([0, 1]), 8, CPU)
    assert batch["input_ids"].tolist() == [[1, 10, 11], [0, 0, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert rows.prompts(np.array([0]), 2, CPU)["input_ids"].tolist() == [[10, 11]]


def test_an_answer_without_a_token_is_refused():
    with pytest.raises(TaskError, match="row 2: the tokenizer makes no token of the answer '7'"):
        encode_answers(Letters(), split(["a", "b"], ["c", "7"]), 16)
    with pytest.raises(TaskError, match="expected at least 2 tokens"):
        encode_answers(Letters(), split(["a"], ["c"]), 1)


def test_a_uniform_model_has_the_logarithm_of_its_vocabulary_as_loss():
    labels = torch.tensor([[IGNORED, 3, 4]])
    assert loss_of(torch.zeros(1, 3, 8), labels).item() == pytest.approx(math.log(8))
