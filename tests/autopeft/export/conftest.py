"""Tiny random checkpoints and trials on them: adapters and heads with random weights, saved as workers do."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from autopeft.budget import Budget
from autopeft.study import (
    PARAMETERS,
    Direction,
    Fidelity,
    Measurement,
    Objective,
    Origin,
    Study,
    Trial,
    TrialState,
)
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.cost import trainable_parameters
from search_spaces.methods.lora import Lora
from search_spaces.presets import layerwise

LABELS = ("negative", "neutral", "positive")


@dataclass(frozen=True)
class Finished:
    """A trial with everything that an export takes."""

    study: Study
    trial: Trial
    measurement: Measurement
    artifacts: Path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Folder of a tiny random model of a family, made once a session."""
    made: dict[str, Path] = {}

    def make(family):
        if family not in made:
            made[family] = _save_tiny(family, tmp_path_factory.mktemp(family))
        return made[family]

    return make


def _save_tiny(family, folder):
    import torch
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertModel,
        DistilBertConfig,
        DistilBertModel,
        LlamaConfig,
        LlamaForCausalLM,
        RobertaConfig,
        RobertaModel,
    )

    sizes = {"vocab_size": 60, "max_position_embeddings": 40}
    bert = {
        "hidden_size": 16,
        "num_hidden_layers": 12,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.3,
        **sizes,
    }
    distil = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "initializer_range": 0.3, **sizes}
    llama = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    models = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**llama, initializer_range=0.3, **sizes)),
        "bert": lambda: BertModel(BertConfig(**bert)),
        "bert-without-pooler": lambda: BertForMaskedLM(BertConfig(**bert | {"num_hidden_layers": 2})),
        "bert-of-six-layers": lambda: BertModel(BertConfig(**bert | {"num_hidden_layers": 6})),
        "roberta": lambda: RobertaModel(RobertaConfig(**bert | {"num_hidden_layers": 2, "pad_token_id": 1})),
        "distilbert": lambda: DistilBertModel(DistilBertConfig(**distil)),
    }
    models[family]().save_pretrained(folder)
    return folder


def plan_for(study_backbone_layers, roles, seed=0):
    """Ranks and scalings that differ from module to module, some modules left out."""
    ranks, scalings = (0, 1, 2, 4, 3, 8), (2.0, 0.5, 1.0)
    rows = []
    for layer in range(study_backbone_layers):
        row = []
        for index, role in enumerate(roles):
            rank = ranks[(seed + layer * 5 + index * 3 + layer * index) % len(ranks)]
            if rank:
                row.append(Placement(role, Lora(rank, rank * scalings[(layer + index) % 3])))
        rows.append(LayerPlan(tuple(row)))
    return Configuration(tuple(rows), Training(1.5e-3))


@pytest.fixture(scope="session")
def finished(checkpoint, tmp_path_factory):
    """A finished trial on a tiny checkpoint; the same one again unless ``fresh``, for tests that damage its files."""
    made = {}

    def make(family, pooling, configuration=None, fresh=False):
        key = family, pooling, configuration
        if fresh or key not in made:
            done = _finish(checkpoint(family), pooling, configuration, tmp_path_factory.mktemp("artifacts"))
            if fresh:
                return done
            made[key] = done
        return made[key]

    return make


def _finish(folder, pooling, configuration, artifacts, number=7):
    from autopeft.adapters.models import backbone_shapes, model_spec

    spec = model_spec(str(folder), pooling)
    backbone = backbone_shapes(spec.source)
    study = study_of(spec, backbone, "exact_match" if backbone.family == "llama" else "accuracy")
    plan = configuration or plan_for(backbone.layer_count, backbone.roles)
    relative = f"{study.name}/trial-{number}/attempt-1"
    sha256 = _train(study, plan, artifacts / relative)
    values = {study.metric: 0.875, "loss": 0.3, "train_seconds": 1.0, "evaluate_seconds": 0.5}
    values[PARAMETERS] = trainable_parameters(plan, backbone)
    measurement = Measurement(0, values, artifact=relative, sha256=sha256)
    trial = Trial(number, plan, plan.digest, TrialState.COMPLETE, Origin.MODEL, None, 0, 1, 1, None, values, None)
    return Finished(study, trial, measurement, artifacts)


def study_of(spec, backbone, metric="accuracy"):
    return Study(
        name="aspects-1",
        model=spec,
        backbone=backbone,
        task={"source": "no such task"},
        task_name="aspects | <b>",
        metric=metric,
        quality_floor=0.4,
        space=layerwise(backbone, (2e-4, 1e-2)),
        objectives=(Objective(metric, Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE)),
        budget=Budget(backbone.parameter_count // 2, "50%"),
        fidelity=Fidelity(60, 16, 32),
        control_learning_rate=1e-3,
        proposer="closed-form",
        initial_count=8,
        trials=20,
        hours=None,
        seed=3,
        environment={"torch": "2.13.0", "device": "cpu"},
    )


def _train(study, plan, folder):
    """Random weights in adapter and head, saved as a worker saves them."""
    import torch

    from autopeft.adapters.plan import apply
    from autopeft.adapters.saving import artifact_sha256, save_adapter
    from autopeft.export.trained import load_model

    classifier = load_model(study, len(LABELS))
    apply(classifier.model, plan, seed=2)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in classifier.trained_parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    save_adapter(classifier.model, folder)
    classifier.save_head(folder)
    return artifact_sha256(folder)
