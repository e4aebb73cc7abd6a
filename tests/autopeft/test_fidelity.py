import pytest

from autopeft.errors import ConfigurationError
from autopeft.fidelity import Fidelity, ladder_of
from autopeft.study import Study


@pytest.mark.parametrize(
    ("steps", "ladder"),
    [
        (400, (100,)),
        (105, (26,)),
        (80, (20,)),
        (60, (20,)),
        (30, (20,)),
        (29, ()),
        (1, ()),
    ],
)
def test_the_usual_rung_is_a_quarter_but_never_short_and_never_close_to_the_full_run(steps, ladder):
    assert ladder_of("rungs", steps) == ladder


def test_shares_are_taken_as_they_are_given():
    assert ladder_of("full", 100) == ()
    assert ladder_of("1/3", 100) == (33,)
    assert ladder_of("0.1, .5,2/3", 100) == (10, 50, 67)
    assert ladder_of("1/100", 8) == (1,)


@pytest.mark.parametrize("text", ["", "half", "0", "1", "1/0", "1.5", "-1/2", "1/2,1/4", "1/2,1/2", "1/4,,1/2", "1e-1"])
def test_what_is_no_ladder_is_refused(text):
    with pytest.raises(ConfigurationError, match="fidelity"):
        ladder_of(text, 100)


def test_shares_that_are_one_step_are_refused():
    with pytest.raises(ConfigurationError, match="of 4 steps these are the rungs 1, 1"):
        ladder_of("1/5,1/4", 4)
    with pytest.raises(ConfigurationError, match="wider shares"):
        ladder_of("9/10", 2)


def test_rungs_count_from_zero_to_the_full_run():
    fidelity = Fidelity(80, 16, 32, (20, 40))
    assert fidelity.top == 2
    assert [fidelity.steps_at(rung) for rung in range(3)] == [20, 40, 80]
    assert [fidelity.share_at(rung) for rung in range(3)] == [0.25, 0.5, 1.0]
    assert Fidelity(80, 16, 32).top == 0


@pytest.mark.parametrize("ladder", [(0,), (80,), (90,), (40, 20), (20, 20), (-1,)])
def test_a_ladder_climbs_to_below_the_full_run(ladder):
    with pytest.raises(ConfigurationError, match="from 1 to 79"):
        Fidelity(80, 16, 32, ladder)


@pytest.mark.parametrize(
    ("batch", "micro", "halvings", "accumulation"),
    [(16, None, 0, 1), (16, None, 1, 2), (16, 8, 0, 2), (16, 8, 1, 4), (16, 64, 0, 1), (10, 4, 0, 3), (1, None, 3, 1)],
)
def test_smaller_pieces_add_up_to_the_same_batch(batch, micro, halvings, accumulation):
    assert Fidelity(80, batch, 32, (), micro).accumulation(halvings) == accumulation


def test_a_record_without_a_ladder_still_opens_and_is_written_as_it_was(make_study):
    old = make_study()
    assert old.to_json()["fidelity"] == {"steps": 2, "batch_size": 4, "max_length": 16}
    assert Study.from_json(old.to_json()) == old
    new = make_study(fidelity=Fidelity(8, 4, 16, (2, 4), 2))
    assert Study.from_json(new.to_json()) == new
