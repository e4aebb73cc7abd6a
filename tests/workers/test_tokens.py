"""Tokens kept on disk are those that tokenising gives, and only for the same rows, tokenizer and lengths."""

import pytest

from autopeft.adapters.models import load_tokenizer
from autopeft.tasks import Split
from workers.answers import encode_answers
from workers.batches import encode
from workers.shelf import Shelf
from workers.tokens import TokenCache, tokenizer_sha256

SPLIT = Split(("the pool was great", "the bed was bad and poor"), ("pool", "bed"), (1, 0))


@pytest.fixture
def cache(tmp_path):
    return TokenCache(Shelf(tmp_path / "tokens", 10**8))


@pytest.fixture
def tokenizer(study):
    return load_tokenizer(study.model)


def rows(tokenizer, cache, split=SPLIT, max_length=32, with_types=True):
    found = encode(tokenizer, split, max_length, with_types=with_types, regression=False, cache=cache)
    return found.ids, found.types


class Counted:
    """A tokenizer that counts its calls."""

    def __init__(self, tokenizer):
        self._tokenizer, self.calls = tokenizer, 0

    def __call__(self, *texts, **options):
        self.calls += 1
        return self._tokenizer(*texts, **options)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


def test_rows_are_tokenised_once_and_come_back_the_same(tokenizer, cache):
    counted = Counted(tokenizer)
    plain = rows(tokenizer, None)
    assert rows(counted, cache) == plain
    assert rows(counted, cache) == plain
    assert counted.calls == 1


def test_other_rows_lengths_or_types_are_tokenised_anew(tokenizer, cache):
    counted = Counted(tokenizer)
    for change in (
        {},
        {"max_length": 6},
        {"with_types": False},
        {"split": Split(SPLIT.texts, None, SPLIT.labels)},
        {"split": Split(SPLIT.texts[::-1], SPLIT.pairs, SPLIT.labels)},
    ):
        assert rows(counted, cache, **change) == rows(tokenizer, None, **change)
    assert counted.calls == 5


def test_another_tokenizer_has_another_hash_and_an_earlier_call_does_not_change_it(tokenizer):
    first = tokenizer_sha256(tokenizer)
    tokenizer("the pool", truncation=True, max_length=3)
    assert tokenizer_sha256(tokenizer) == first
    tokenizer.add_tokens(["balcony"])
    assert tokenizer_sha256(tokenizer) != first


def test_answers_come_back_the_same(tokenizer, cache):
    split = Split(("how was it", "and"), None, (0, 1), ("great", "bad poor"), (("great", "bad"), ("fine", "bad poor")))
    plain = encode_answers(tokenizer, split, 12)
    for _ in range(2):
        kept = encode_answers(tokenizer, split, 12, cache)
        assert (kept.ids, kept.starts) == (plain.ids, plain.starts)
        assert (kept.options.ids, kept.options.starts) == (plain.options.ids, plain.options.starts)
    assert len(cache.shelf.entries()) == 2


def test_where_nothing_can_be_kept_rows_are_tokenised_with_a_note(tokenizer, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = TokenCache(Shelf(tmp_path / "file" / "tokens", 10**8))
    assert rows(tokenizer, cache) == rows(tokenizer, None)
    assert "tokens are not kept" in caplog.text
    assert rows(tokenizer, TokenCache(Shelf(tmp_path / "none", 0))) == rows(tokenizer, None)
