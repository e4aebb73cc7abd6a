"""``autopeft space ls|show|size``: search spaces by name or file, on a backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.cli.console import Json, document

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace

space = typer.Typer(help="Search spaces by name, or as a YAML file.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="SPACE", help="A named space, or a YAML file.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Backbone to bind it to.")]


@space.command()
def ls(as_json: Json = False) -> None:
    """The named spaces."""
    from search_spaces.presets import DESCRIPTIONS

    if as_json:
        document({"schema": "autopeft.spaces/1", "spaces": DESCRIPTIONS})
        return
    width = max(map(len, DESCRIPTIONS)) + 2
    for name, description in DESCRIPTIONS.items():
        print(f"{name:<{width}}{description}")


@space.command()
def show(name: Name, model: Model = "minilm", as_json: Json = False) -> None:
    """A space as YAML: a start for one of your own."""
    import yaml

    definition: dict[str, Any] = _build(name, model).definition.to_json()
    if as_json:
        document(definition)
    else:
        print(yaml.safe_dump(definition, sort_keys=False, default_flow_style=None), end="")


@space.command()
def size(
    name: Name,
    budget: Annotated[str, typer.Option("--budget", "-b", help="0.5%, 110k, …")] = "0.5%",
    model: Model = "minilm",
    as_json: Json = False,
) -> None:
    """How many configurations a space holds, and what share of them fits a budget."""
    from autopeft.budget import parse_budget

    built = _build(name, model)
    limit = parse_budget(budget, built.backbone.parameter_count).parameters
    share = built.share_within(limit)
    if as_json:
        facts = {"configurations": built.size, "share_within": share, "budget": limit}
        bounds = {"smallest": built.smallest_cost, "largest": built.largest_cost}
        document({"schema": "autopeft.space-size/1", "space": built.name, **facts, **bounds})
        return
    print(f"space     {built.name} on {built.backbone.name}: {built.dimension_count} dimensions")
    print(f"size      {built.size:,} configurations, learning rate apart")
    print(f"budget    {budget} = {limit:,} parameters: {share * 100:.3g} % of them fit")
    print(f"cost      {built.smallest_cost:,} to {built.largest_cost:,} trainable parameters")
    built.require_feasible(limit)


def _build(name: str, model: str) -> SearchSpace:
    from autopeft.adapters.models import backbone_shapes
    from search_spaces.presets import DEFAULT_LEARNING_RATE, build

    return build(name, backbone_shapes(model), DEFAULT_LEARNING_RATE)


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.add_typer(space, name="space")
