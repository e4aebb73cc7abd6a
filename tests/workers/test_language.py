"""Language modelling from end to end on tiny random decoders: loss, options, exact match."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
)

from autopeft.adapters.models import backbone_shapes, model_spec
from autopeft.budget import Budget
from autopeft.errors import BackboneError, TaskError
from autopeft.final import FinalPlan, FinalSettings
from autopeft.final import Training as FinalTraining
from autopeft.settings import CacheMode
from autopeft.study import PARAMETERS, Direction, Fidelity, Objective, Order, Study
from autopeft.tasks import TaskSpec, load_task
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.lora import DATA_DRIVEN, Lora
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial
from search_spaces.presets import layerwise
from workers.backbones import load_resident
from workers.evaluate import evaluate
from workers.final import train_in_full
from workers.language import generate, most_generated
from workers.pack.evaluate import evaluate_pack
from workers.scoring import score_rows
from workers.timing import time_step
from workers.training import loss_of, said_tokens

CPU = torch.device("cpu")
ROWS = 48
VOCABULARY = 320
CONFIGS = {
    "llama": lambda: LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, **SIZES
    ),
    "gpt2": lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **SIZES),
    "opt": lambda: OPTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32, **SIZES
    ),
}
SIZES = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
    "initializer_range": 0.3,
}


def byte_tokenizer():
    """A token for each byte, and three for begin, end and padding."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.decoder = decoders.ByteLevel()
    names = {"bos_token": "<begin>", "eos_token": "<end>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **names)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """Folder of a tiny random decoder of a family with a tokenizer of bytes."""
    made = {}

    def make(family):
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            config = CONFIGS[family]() if callable(CONFIGS[family]) else CONFIGS[family]
            AutoModelForCausalLM.from_config(config).save_pretrained(made[family])
            byte_tokenizer().save_pretrained(made[family])
        return made[family]

    return make


@pytest.fixture
def ask(decoder, tmp_path):
    """A study of rows on a decoder, and what a worker keeps of it."""

    def make(rows, family="llama", metric=None, steps=4, **spec):
        folder = tmp_path / "asked"
        folder.mkdir(exist_ok=True)
        for name, part in (("train", rows), ("validation", rows[:12]), ("test", rows[:6])):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        study = study_of(str(decoder(family)), TaskSpec(str(folder), metric=metric, **spec), steps)
        return study, load_resident(study, CPU)

    return make


def study_of(source, asked, steps, max_length=32, batch_size=8):
    task, backbone = load_task(asked), backbone_shapes(source)
    objectives = (Objective(task.metric, Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE))
    return Study(
        name="asked-1",
        model=model_spec(source, "stock"),
        backbone=backbone,
        task=asked.to_json(),
        task_name=task.name,
        metric=task.metric,
        quality_floor=task.quality_floor,
        space=layerwise(backbone, (1e-3, 1e-1)),
        objectives=objectives,
        budget=Budget(100_000, "100000"),
        fidelity=Fidelity(steps, batch_size, max_length),
        control_learning_rate=1e-2,
        proposer="random",
        initial_count=2,
        trials=4,
        hours=None,
        seed=5,
    )


def order_of(study, rate=2e-2, rank=4):
    plan = uniform(study.backbone, study.backbone.roles, Lora(rank, 2.0 * rank), rate)
    return Order(7, 1, 0, study, plan, 0, 0)


def sums(count=ROWS):
    """Prompts of various lengths, all with one answer."""
    return [{"prompt": "x" * (1 + n % 5) + ":", "completion": "yes"} for n in range(count)]


def choices(count=ROWS):
    return [
        {"question": f"{'ab'[n % 2]}?", "options": ["no no", "yes", "maybe"], "answer": n % 2} for n in range(count)
    ]


def alone(model, ids, start):
    """Log-likelihood of the tokens from ``start`` on, of one row, as transformers computes it."""
    chances = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(chances[place - 1, ids[place]].item() for place in range(start, len(ids)))


@pytest.mark.parametrize("family", CONFIGS)
def test_held_out_loss_is_the_mean_over_the_tokens_of_answers(ask, family):
    study, resident = ask(sums(), family, metric="likelihood")
    scored = score_rows(resident.classifier, resident.validation, study.metric)
    rows = resident.validation
    stock = AutoModelForCausalLM.from_pretrained(study.model.source).eval()
    totals = [alone(stock, ids, start) for ids, start in zip(rows.ids, rows.starts, strict=True)]
    assert scored.loss == pytest.approx(-sum(totals) / rows.answer_lengths.sum(), abs=1e-5)
    assert scored.value == pytest.approx(math.exp(-scored.loss))
    assert scored.predictions == pytest.approx(totals, abs=1e-4)
    assert scored.correct == ()


@pytest.mark.parametrize("family", CONFIGS)
def test_the_likeliest_option_is_chosen_as_each_alone_would_say(ask, family):
    study, resident = ask(choices(), family)
    assert study.metric == "option_accuracy"
    assert study.quality_floor == pytest.approx(1 / 3)
    scored = score_rows(resident.classifier, resident.validation, study.metric)
    options = resident.validation.options
    stock = AutoModelForCausalLM.from_pretrained(study.model.source).eval()
    each = [alone(stock, ids, start) for ids, start in zip(options.ids, options.starts, strict=True)]
    chosen = np.array(each).reshape(-1, 3).argmax(1)
    assert scored.predictions == chosen.tolist()
    assert scored.correct == tuple((chosen == resident.validation.labels.numpy()).astype(int))
    assert scored.value == pytest.approx(np.mean(scored.correct))


@pytest.mark.parametrize("family", CONFIGS)
def test_the_training_loss_is_what_transformers_makes_of_the_labels(ask, family):
    _, resident = ask(sums(), family)
    inputs, labels = resident.train.batch(np.arange(8), CPU)
    stock = resident.classifier.model(**inputs, labels=labels).loss
    ours = loss_of(resident.classifier(inputs, said_tokens(labels)), labels)
    assert ours.item() == pytest.approx(stock.item(), rel=1e-6)


def greedy(model, rows, row):
    """What the model says to a prompt alone, token by token and without a cache."""
    ids = list(rows.ids[row][: rows.starts[row]])
    for _ in range(rows.answer_lengths.max()):
        token = model(torch.tensor([ids])).logits[0, -1].argmax().item()
        if token == rows.end:
            break
        ids.append(token)
    return rows.decode(ids[rows.starts[row] :])


@pytest.mark.parametrize("family", CONFIGS)
def test_a_padded_prompt_generates_what_it_would_alone(ask, family):
    study, resident = ask(sums(), family)
    assert study.metric == "exact_match"
    together = generate(resident.classifier, resident.validation, np.arange(5))
    stock = AutoModelForCausalLM.from_pretrained(study.model.source).eval()
    assert together == [greedy(stock, resident.validation, row) for row in range(5)]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(
    ("site", "method"), [("attention", Prefix(3)), ("feed_forward", Serial(4)), ("feed_forward", Parallel(4))]
)
def test_adapters_that_are_no_weights_generate_alike_with_a_cache_and_without(ask, family, site, method):
    study, resident = ask(sums(), family)
    plan = uniform(study.backbone, (site,), method, 1e-2)
    resident.classifier.adapt(plan, seed=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in resident.classifier.trained_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    together = generate(resident.classifier, resident.validation, np.arange(5))
    assert together == [greedy(resident.classifier.model, resident.validation, row) for row in range(5)]


@pytest.mark.parametrize("family", CONFIGS)
def test_prefixes_of_different_lengths_generate_in_a_batch_what_they_do_alone(ask, family):
    _, resident = ask(sums(), family)
    rows = [LayerPlan((Placement("attention", Prefix(length)),)) for length in (2, 5)]
    resident.classifier.adapt(Configuration(tuple(rows), Training(1e-2)), seed=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in resident.classifier.trained_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    together = generate(resident.classifier, resident.validation, np.arange(5))
    assert together == [generate(resident.classifier, resident.validation, np.array([row]))[0] for row in range(5)]
    assert together == [greedy(resident.classifier.model, resident.validation, row) for row in range(5)]


def counted(count=ROWS):
    return [{"prompt": f"{n % 7}?", "completion": f"it is {n % 7}"} for n in range(count)]


@pytest.mark.parametrize(("metric", "share"), [("number", 1.0), ("f1", 2 / 3)])
def test_what_is_generated_is_graded(ask, monkeypatch, metric, share):
    study, resident = ask(counted(), metric=metric)
    rows = resident.validation
    said = [text.replace("it", "that") for text in rows.answers]
    monkeypatch.setattr("workers.language.generate", lambda _model, _rows, chosen, _most: [said[row] for row in chosen])
    scored = score_rows(resident.classifier, rows, study.metric)
    assert scored.value == pytest.approx(share)
    assert scored.correct == ((1,) * 12 if metric == "number" else ())


def test_a_users_metric_grades_what_is_generated(ask, tmp_path):
    (tmp_path / "grading.py").write_text("def short(said, wanted):\n    return [float(len(x) <= 3) for x in said]\n")
    study, resident = ask(sums(), metric=f"{tmp_path}/grading.py:short", steps=1, max_new_tokens=3)
    measurement = evaluate(order_of(study), resident, tmp_path)
    assert measurement.values["custom_short"] == 1.0
    assert measurement.values["perplexity"] == pytest.approx(math.exp(measurement.values["loss"]))


@pytest.mark.parametrize(("asked", "most"), [(None, 4), (2, 2), (30, 30), (99, 31)])
def test_generation_is_as_long_as_the_longest_answer_or_as_asked(ask, asked, most):
    _, resident = ask(sums(), max_new_tokens=asked)
    assert most_generated(resident.validation) == most


def test_a_trial_on_packed_rows_comes_out_like_one_on_padded_rows(ask, tmp_path):
    study, resident = ask(sums(), metric="likelihood", steps=6)
    packed = replace(study, fidelity=replace(study.fidelity, packing=True), cache=CacheMode.FP32)
    upper = Configuration((LayerPlan(), order_of(study).configuration.layers[1]), Training(2e-2))
    padded = evaluate(replace(order_of(study), configuration=upper), resident, tmp_path / "padded")
    measured = evaluate(replace(order_of(packed), configuration=upper), load_resident(packed, CPU), tmp_path / "packed")
    assert measured.values["loss"] == pytest.approx(padded.values["loss"], abs=1e-5)
    assert [loss for _, loss in measured.curve] == pytest.approx([loss for _, loss in padded.curve], abs=1e-5)
    assert measured.details["execution"]["why"] == "rows are packed, each step's in its own way"


def test_a_trial_learns_to_say_the_answer(ask, tmp_path):
    study, resident = ask(sums(), steps=40)
    before = score_rows(resident.classifier, resident.validation, study.metric)
    measurement = evaluate(order_of(study), resident, tmp_path)
    assert before.value == 0.0
    assert measurement.values["exact_match"] == 1.0
    assert measurement.values["loss"] < 0.5 < before.loss
    assert measurement.correct == (1,) * 12


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("rows", [sums, choices], ids=["generated", "options"])
def test_a_pack_learns_and_scores_answers_as_each_does_alone(ask, tmp_path, family, rows):
    study, resident = ask(rows(), family, steps=8)
    orders = [replace(order_of(study, rate, rank), trial_id=rank) for rate, rank in ((2e-2, 4), (5e-3, 1))]
    alone = [evaluate(order, resident, tmp_path / "alone") for order in orders]
    told = {}
    evaluate_pack(orders, resident, tmp_path / "together", lambda order, found: told.update({order.trial_id: found}))
    for order, own in zip(orders, alone, strict=True):
        mine = told[order.trial_id]
        assert mine.values[study.metric] == own.values[study.metric]
        assert mine.values["loss"] == pytest.approx(own.values["loss"], abs=1e-4)
        assert [loss for _, loss in mine.curve] == pytest.approx([loss for _, loss in own.curve], abs=1e-5)


def test_a_language_model_without_adapters_is_measured_as_it_is(ask, tmp_path):
    study, resident = ask(sums(), metric="likelihood")
    before = score_rows(resident.classifier, resident.validation, study.metric)
    empty = Configuration((LayerPlan(),) * 2, Training(1e-3))
    measurement = evaluate(Order(7, 1, 0, study, empty, 0, 0), resident, tmp_path)
    assert measurement.values["loss"] == before.loss
    assert (measurement.curve, measurement.values[PARAMETERS]) == ((), 0)


def test_a_trial_learns_which_option_is_right(ask, tmp_path):
    study, resident = ask(choices(), steps=80)
    assert evaluate(order_of(study), resident, tmp_path).values["option_accuracy"] == 1.0


def test_a_language_model_is_trained_in_full_and_its_step_is_timed(ask, tmp_path):
    study, _ = ask(sums())
    origin = {"trial": 0, "origin": "model"}
    final = FinalTraining(order_of(study).configuration, origin, tmp_path / "final")
    train_in_full(FinalPlan(study, FinalSettings((1000,), full_data=True), (final,)))
    metrics = json.loads((tmp_path / "final" / "metrics.json").read_text())
    assert (metrics["metric"], metrics["rows"]["test"], metrics["head_parameters"]) == ("exact_match", 6, 0)
    assert time_step({"study": study.to_json(), "device": "cpu"})["measured"][0]["step_seconds"] > 0


def chats(count=ROWS):
    return [
        {"messages": [{"role": "user", "content": "x" * (1 + n % 5)}, {"role": "assistant", "content": "yes"}]}
        for n in range(count)
    ]


@pytest.mark.parametrize("packing", [False, True])
def test_conversations_are_trained_in_full_on_the_rows_of_the_search(ask, tmp_path, packing):
    study, resident = ask(chats(), steps=3, chat_template="plain")
    fidelity = replace(study.fidelity, packing=packing)
    study = replace(study, environment={"data": resident.task.data_sha256}, fidelity=fidelity)
    final = FinalTraining(order_of(study).configuration, {"trial": 0, "origin": "model"}, tmp_path / "final")
    train_in_full(FinalPlan(study, FinalSettings((1000,), full_data=True), (final,)))
    metrics = json.loads((tmp_path / "final" / "metrics.json").read_text())
    assert (metrics["rows"]["train"], metrics["data_sha256"]) == (60, resident.task.data_sha256)
    other = replace(study, task={**study.task, "chat_template": "headings"})
    final = replace(final, output=tmp_path / "other")
    with pytest.raises(TaskError, match="are not those of the search"):
        train_in_full(FinalPlan(other, FinalSettings((1000,)), (final,)))


def test_the_harness_scores_the_adapter_that_is_handed_over(ask, tmp_path, monkeypatch):
    study, _ = ask(sums(), steps=2)
    asked = []

    def scores(_study, _task, classifier, tasks, limit):
        trained = torch.cat([p.detach().flatten() for p in classifier.trained_parameters().values()])
        asked.append((tasks, limit, trained))
        return {"version": "0", "limit": limit, "tasks": {"arc_easy": {"acc": 0.5}}}

    monkeypatch.setattr("workers.final.require_harness", lambda tasks, metric: None)
    monkeypatch.setattr("workers.final.harness_scores", scores)
    final = FinalTraining(order_of(study).configuration, {"trial": 0, "origin": "model"}, tmp_path / "final")
    settings = FinalSettings((1000, 1001), lm_eval=("arc_easy",), lm_eval_limit=5)
    assert FinalSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    train_in_full(FinalPlan(study, settings, (final,)))
    metrics = json.loads((tmp_path / "final" / "metrics.json").read_text())
    assert metrics["lm_eval"]["tasks"] == {"arc_easy": {"acc": 0.5}}
    ((tasks, limit, trained),) = asked
    assert (tasks, limit) == (("arc_easy",), 5)
    resident = load_resident(study, CPU)
    resident.classifier.readapt(tmp_path / "final" / f"seed-{metrics['kept_seed']}")
    kept = torch.cat([p.detach().flatten() for p in resident.classifier.trained_parameters().values()])
    assert torch.equal(trained, kept)


@pytest.mark.parametrize("init", DATA_DRIVEN)
def test_an_initialisation_reads_the_answers_of_training_rows(ask, tmp_path, init):
    study, resident = ask(sums(), steps=2)
    plan = uniform(study.backbone, ("query", "value"), Lora(2, 4.0, init=init), 1e-3)
    assert evaluate(Order(7, 1, 0, study, plan, 0, 0), resident, tmp_path).values["loss"] > 0


def test_an_encoder_is_refused_for_answers(ask, checkpoint):
    study, _ = ask(sums())
    encoder = study_of(str(checkpoint("bert")), TaskSpec.from_json(study.task), 4)
    with pytest.raises(BackboneError, match="bert generates no text"):
        load_resident(encoder, CPU)


@pytest.mark.slow
def test_a_tiny_llama_trained_on_real_text_is_improved_by_adapters(data_folder, tmp_path):
    """Trains all weights on three books first, then adapters alone on Shakespeare's plays."""
    source = tmp_path / "llama"
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 176}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes, num_key_value_heads=2, **SIZES | LONG))
    pretrain(model, [data_folder / "corpus" / f"gutenberg_{book}.txt" for book in BOOKS], steps=500)
    model.save_pretrained(source)
    byte_tokenizer().save_pretrained(source)

    plays = tmp_path / "plays"
    plays.mkdir()
    (plays / "train.txt").write_text((data_folder / "corpus" / "tinyshakespeare.txt").read_text()[:400_000])
    asked = TaskSpec(str(plays), train_rows=320, validation_rows=40)
    study = study_of(str(source), asked, steps=80, max_length=128, batch_size=16)
    resident = load_resident(study, CPU)
    before = score_rows(resident.classifier, resident.validation, study.metric)
    after = evaluate(order_of(study, rate=5e-3), resident, tmp_path / "artifacts").values
    assert before.loss < 3.0 < math.log(VOCABULARY)  # it has learned to spell
    assert after["loss"] < before.loss - 0.1
    assert after["likelihood"] == pytest.approx(math.exp(-after["loss"]))


BOOKS = ("pride_and_prejudice", "frankenstein", "moby_dick")
LONG = {"max_position_embeddings": 256, "initializer_range": 0.02}


def pretrain(model, files, steps, width=128, rows=16):
    """Trains every weight on pieces of the files."""
    ids = torch.tensor(byte_tokenizer()("".join(file.read_text() for file in files), verbose=False)["input_ids"])
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3, fused=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        starts = torch.randint(len(ids) - width, (rows,), generator=generator)
        batch = torch.stack([ids[start : start + width] for start in starts])
        optimizer.zero_grad()
        model(batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
