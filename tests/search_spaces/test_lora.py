import pytest

from search_spaces.backbone import ModuleShape
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import Lora


def test_parameters_are_rank_times_both_widths():
    assert Lora(4, 8.0).parameter_count(ModuleShape("up", "x", 384, 1536)) == 4 * (384 + 1536)


def test_json_goes_both_ways():
    assert Lora.from_json(Lora(4, 8).to_json()) == Lora(4, 8.0)


def test_whole_and_broken_alphas_of_one_value_are_one_method():
    assert Lora(4, 8).to_json() == Lora(4, 8.0).to_json()


@pytest.mark.parametrize("rank", [0, -1, True, 2.0, "4"])
def test_a_rank_is_a_whole_number_from_one(rank):
    with pytest.raises(ConfigurationError, match=r"LoRA rank .*expected a whole number ≥ 1"):
        Lora(rank, 1.0)


@pytest.mark.parametrize("alpha", [0, -1.0, 1e6, float("nan"), float("inf"), True, "8"])
def test_an_alpha_is_a_positive_number(alpha):
    with pytest.raises(ConfigurationError, match="LoRA alpha"):
        Lora(1, alpha)


@pytest.mark.parametrize("data", [{}, {"rank": 4}, {"rank": 4, "alpha": 8, "dropout": 0.1}])
def test_sizes_are_rank_and_alpha_and_no_more(data):
    with pytest.raises(ConfigurationError, match=r"lora takes rank and alpha \(and may take scaling and init\), got"):
        Lora.from_json(data)
