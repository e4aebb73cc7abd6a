import pytest

from autopeft.budget import BudgetSyntaxError, parse_budget, parse_share
from autopeft.errors import BudgetError

MINILM = 22_713_216


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("0.5%", 113_566),
        ("0.005", 113_566),
        ("5e-3", 113_566),
        (" .5 % ", 113_566),
        ("100%", MINILM),
        ("1.0", MINILM),
        ("1", 1),
        ("1536", 1536),
        ("110k", 110_000),
        ("110K", 110_000),
        ("1.2M", 1_200_000),
        ("0.0015M", 1500),
        ("1e5", 100_000),
    ],
)
def test_fractions_and_counts_are_read(text, parameters):
    budget = parse_budget(text, MINILM)
    assert (budget.parameters, budget.text) == (parameters, text)


@pytest.mark.parametrize("text", ["", "%", "half", "-5", "0.5%%", "1,000", "5 x", "nan", "inf", "1e", "0x10"])
def test_what_is_no_budget_says_what_is(text):
    with pytest.raises(BudgetSyntaxError, match=r"expected a fraction \(0.5%, 0.005\) or a count \(110k, 1.2M\)"):
        parse_budget(text, MINILM)


@pytest.mark.parametrize("text", ["0", "0%", "1e-9", "101%", "23M", "1e300"])
def test_a_budget_lies_between_one_parameter_and_the_backbone(text):
    with pytest.raises(BudgetSyntaxError, match="expected 1 to the backbone's 22,713,216"):
        parse_budget(text, MINILM)


def test_a_text_that_is_no_budget_ends_like_a_wrong_flag():
    assert issubclass(BudgetSyntaxError, BudgetError)
    assert (BudgetSyntaxError.exit_code, BudgetError.exit_code) == (2, 5)


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.25", 0.25), ("100%", 1.0), ("1", 1.0)])
def test_a_share_is_a_percentage_or_a_fraction(text, share):
    assert parse_share(text, "data fraction") == pytest.approx(share)


@pytest.mark.parametrize("text", ["2.5", "1.5", "1536.25"])
def test_a_count_is_whole(text):
    with pytest.raises(BudgetSyntaxError, match="is no whole number of parameters"):
        parse_budget(text, MINILM)


@pytest.mark.parametrize("text", ["0", "0%", "101%", "2", "10k", "many", "-1", ""])
def test_what_is_no_share_says_what_one_is(text):
    with pytest.raises(BudgetError, match=r"data fraction .*such as 10% or 0.1"):
        parse_share(text, "data fraction")
