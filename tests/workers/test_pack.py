"""Members of a pack against the same trials alone, step by step."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from autopeft.errors import DivergedError
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.bias import Bias
from search_spaces.methods.dora import Dora
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.lora import Lora
from search_spaces.methods.norm import Norm
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial
from workers.backbones import load_resident
from workers.batches import training_order
from workers.pack.member import Member
from workers.pack.pack import Pack
from workers.seeds import initial_seed
from workers.stopping import Preempted
from workers.training import TrainingRun

CPU = torch.device("cpu")
STEPS = 20


def plan(*rows, rate=2e-2):
    return Configuration(tuple(LayerPlan(tuple(Placement(*one) for one in row)) for row in rows), Training(rate))


LOW_RANKS = (
    plan([("query", Lora(1, 2.0)), ("down", Lora(4, 2.0))], [("value", Lora(3, 6.0)), ("query", Lora(2, 1.0))]),
    plan([], [("query", Lora(4, 8.0, "rank-stabilised")), ("up", Lora(2, 2.0, init="orthogonal"))], rate=5e-3),
    plan([("query", Lora(2, 2.0))], [], rate=1e-1),
)
OTHERS = (
    # no bias of a key: it changes no output, so its gradient is rounding and AdamW makes steps of that
    plan([("query", Dora(2, 4.0)), ("up", Ia3()), ("value", Bias())], [("output", Lora(2, 4.0)), ("output", Bias())]),
    plan([("attention", Prefix(3)), ("norms", Norm())], [("feed_forward", Serial(3)), ("feed_forward", Parallel(2))]),
    plan([("query", Lora(2, 4.0)), ("query", Ia3())], [("feed_forward", Serial(2)), ("attention", Prefix(1))]),
    LOW_RANKS[0],  # plain LoRA where others have DoRA or IA³ around it, under the same names
)


def orders_of(make_order, study, plans):
    return [make_order(study, one, number=number) for number, one in enumerate(plans)]


def losses_of(run_curve):
    return [loss for _, loss in run_curve]


def data_order(resident, study, steps=STEPS):
    return training_order(resident.train.lengths, study.fidelity.batch_size, steps, study.seed, 0)


def alone(resident, study, order, steps=STEPS):
    """Losses of a trial alone at every step, and what it has trained."""
    classifier, configuration = resident.classifier, order.configuration
    classifier.adapt(configuration, initial_seed(study.seed, order.replicate, configuration.digest))
    run = TrainingRun(
        classifier, resident.train, data_order(resident, study, steps), configuration.training.learning_rate
    )
    run.run(steps)
    trained = {name: value.detach().clone() for name, value in classifier.trained_parameters().items()}
    classifier.strip()
    return losses_of(run.curve), trained


def packed(resident, study, orders, artifacts, steps=STEPS):
    rows = data_order(resident, study, steps)
    members = [Member.enrol(order, resident.classifier, artifacts, rows) for order in orders]
    return Pack(resident.classifier, resident.train, rows, members), members


def assert_as_alone(member, losses, trained):
    assert losses_of(member.curve) == pytest.approx(losses[: len(member.curve)], abs=1e-5)
    assert set(trained) == set(member.lifted.parameters)
    for name, value in trained.items():
        torch.testing.assert_close(member.lifted.parameters[name].detach(), value, rtol=1e-4, atol=1e-4)


def digest(classifier):
    found = hashlib.sha256()
    head = set(classifier.head_parameters())
    for name, value in sorted(classifier.model.state_dict().items()):
        if name not in head:
            found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("plans", [LOW_RANKS, OTHERS], ids=["low ranks", "every kind of place"])
def test_a_pack_trains_to_the_losses_and_values_of_separate_runs(study, resident, make_order, tmp_path, plans):
    orders, before = orders_of(make_order, study, plans), digest(resident.classifier)
    expected = [alone(resident, study, order) for order in orders]
    pack, members = packed(resident, study, orders, tmp_path)
    assert pack.run(STEPS) == {}
    for member, (losses, trained) in zip(members, expected, strict=True):
        assert len(member.curve) == STEPS
        assert_as_alone(member, losses, trained)
    assert digest(resident.classifier) == before
    assert resident.classifier.configuration is None


@pytest.mark.parametrize(
    ("family", "pooling"), [("bert", "stock"), ("llama", "mean"), ("llama", "stock"), ("t5", "stock")]
)
def test_families_and_heads(make_study, make_order, tmp_path, family, pooling):
    study = make_study(family, pooling)
    resident = load_resident(study, CPU)
    layers = study.backbone.layer_count
    plans = [
        plan(*[[("query", Lora(rank, 2.0)), ("down", Ia3())] for _ in range(layers)], rate=rate)
        for rank, rate in ((1, 2e-2), (3, 5e-3))
    ] + [plan(*[[("attention", Prefix(2))] for _ in range(layers)])]
    orders = orders_of(make_order, study, plans)
    expected = [alone(resident, study, order, 6) for order in orders]
    pack, members = packed(resident, study, orders, tmp_path, 6)
    pack.run(6)
    for member, (losses, trained) in zip(members, expected, strict=True):
        assert_as_alone(member, losses, trained)


def test_frozen_layers_run_once_for_all_members(study, resident, make_order, tmp_path):
    """Both plans leave layer 0 alone, so its modules see a batch of single rows."""
    upper = (plan([], [("query", Lora(1, 2.0))]), plan([], [("value", Lora(2, 2.0))], rate=5e-3))
    orders = orders_of(make_order, study, upper)
    expected = [alone(resident, study, order) for order in orders]
    resident.classifier.first_layer = 1
    pack, members = packed(resident, study, orders, tmp_path)
    seen = []
    hook = resident.classifier.model.encoder.layer[0].attention.self.query.register_forward_pre_hook(
        lambda _module, inputs: seen.append(len(inputs[0]))
    )
    pack.run(STEPS)
    hook.remove()
    assert set(seen) == {study.fidelity.batch_size}
    for member, (losses, trained) in zip(members, expected, strict=True):
        assert_as_alone(member, losses, trained)


def test_a_member_that_diverges_leaves_and_the_others_do_not_notice(study, resident, make_order, tmp_path):
    orders = orders_of(make_order, study, LOW_RANKS)
    calm, sober = packed(resident, study, orders, tmp_path)
    calm.run(STEPS)
    pack, members = packed(resident, study, orders, tmp_path)
    pack.run(5)
    with torch.no_grad():
        next(iter(members[1].lifted.parameters.values())).fill_(float("nan"))
    leaving = pack.run(STEPS)
    assert list(leaving) == [1]
    assert isinstance(leaving[1], DivergedError)
    assert pack.step == 6  # in the very step: here every step is a point of the curve
    pack.take([1])
    assert pack.run(STEPS) == {}
    for mine, other in ((0, 0), (2, 2)):
        assert losses_of(members[mine].curve) == pytest.approx(losses_of(sober[other].curve), abs=1e-6)
        for name, value in sober[other].lifted.parameters.items():
            torch.testing.assert_close(members[mine].lifted.parameters[name], value, rtol=0, atol=1e-5)


def test_a_nan_stays_in_its_own_rows_while_its_member_stays(study, resident, make_order, tmp_path):
    """Where a curve has points every third step, a member that is lost computes on beside the others."""
    steps = 150
    orders = orders_of(make_order, study, OTHERS)
    runs = []
    for poisoned in (False, True):
        pack, members = packed(resident, study, orders, tmp_path, steps)
        pack.run(3)
        if poisoned:
            with torch.no_grad():
                for value in members[2].lifted.parameters.values():
                    value.fill_(float("nan"))
        pack.run(6)
        runs.append((members, pack.arena.values.clone()))
    (calm, values), (_, beside) = runs
    others = [0, 1, 3]
    assert torch.isnan(beside[2]).any()
    assert torch.equal(values[others], beside[others])
    assert len(calm[0].curve) == 2


def test_removal_in_the_middle_leaves_the_rest_as_they_were(study, resident, make_order, tmp_path):
    orders = orders_of(make_order, study, OTHERS)
    expected = [alone(resident, study, order) for order in orders]
    pack, members = packed(resident, study, orders, tmp_path)
    asked = {members[0].key: True}
    leaving = pack.run(STEPS, lambda done: asked if done == 7 else {})
    assert [type(error) for error in leaving.values()] == [Preempted]
    taken = pack.take(list(leaving))
    assert [member.key for member in taken.members] == list(asked)
    pack.run(STEPS)
    for member, (losses, trained) in list(zip(members, expected, strict=True))[1:]:
        assert_as_alone(member, losses, trained)
    assert len(members[0].curve) == 7
    taken.run(STEPS)  # alone in a pack of its own it comes to the same end
    assert_as_alone(members[0], *expected[0])


def test_a_member_stands_in_alone_with_what_it_has_trained(study, resident, make_order, tmp_path):
    orders = orders_of(make_order, study, OTHERS)
    pack, members = packed(resident, study, orders, tmp_path)
    pack.run(3)
    for member in members:
        with member.standing_in(resident.classifier):
            for name, value in resident.classifier.trained_parameters().items():
                assert torch.equal(value, member.lifted.parameters[name])
    assert resident.changed == []


def test_a_members_state_goes_on_alone_and_a_lone_trials_state_goes_on_in_a_pack(study, resident, make_order, tmp_path):
    orders, rows = orders_of(make_order, study, LOW_RANKS[:2]), data_order(resident, study)
    expected = [alone(resident, study, order) for order in orders]
    pack, members = packed(resident, study, orders, tmp_path)
    pack.run(9)
    states = [pack.state(row) for row in range(2)]
    with members[1].standing_in(resident.classifier):
        run = TrainingRun(resident.classifier, resident.train, rows, 5e-3, state=states[1])
        run.run(14)
        mid, values = run.state(1.0), resident.classifier.trained_parameters()
        kept = {name: value.detach().clone() for name, value in values.items()}
    for name, value in kept.items():
        members[1].lifted.parameters[name].data.copy_(value)
    resumed = replace(members[1], begun=mid, from_step=mid.step, curve=list(mid.curve))
    later = Pack(resident.classifier, resident.train, rows, [resumed])
    later.run(STEPS)
    assert later.step == STEPS
    assert_as_alone(resumed, *expected[1])


def test_seconds_are_shared_out(study, resident, make_order, tmp_path):
    pack, members = packed(resident, study, orders_of(make_order, study, LOW_RANKS), tmp_path)
    before = [member.seconds for member in members]
    pack.share(3.0)
    assert np.subtract([member.seconds for member in members], before) == pytest.approx([1.0, 1.0, 1.0])
