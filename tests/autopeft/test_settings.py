import pytest

from autopeft.errors import ConfigurationError
from autopeft.settings import SearchSettings, artifact_root, database_url, merge


def test_defaults_stand_where_nothing_is_said():
    settings, origins = merge({}, environment={})
    assert settings == SearchSettings()
    assert set(origins.values()) == {"default"}


def test_a_flag_beats_a_pair_beats_the_environment_beats_the_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("seed: 1\ntrials: 1\nepochs: 1\nbudget: 1%\n")
    environment = {"AUTOPEFT_SEED": "2", "AUTOPEFT_TRIALS": "2", "AUTOPEFT_EPOCHS": "2"}
    settings, origins = merge({"seed": 4}, ["seed=3", "trials=3"], file, environment)
    assert (settings.seed, settings.trials, settings.epochs, settings.budget) == (4, 3, 2.0, "1%")
    assert (origins["seed"], origins["trials"], origins["epochs"]) == ("flag", "-o", "environment")
    assert origins["budget"] == f"file {file}"


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("buget=1%", "did you mean 'budget'"),
        ("trials=many", "expected a whole number, got 'many'"),
        ("trials=0", "expected a number above 0"),
        ("hours=inf", "expected a number above 0"),
        ("seed=-1", "expected a number above 0"),
        ("trials", "expected key=value"),
        ("study=a/b", "use letters, digits"),
    ],
)
def test_a_wrong_pair_is_refused_with_what_was_got(pair, words):
    with pytest.raises(ConfigurationError, match=words):
        merge({}, [pair], environment={})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "expected keys and values"),
        ("a: [", "cannot be read as YAML"),
        ("trials: [3]", "expected a whole number"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, words):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        merge({}, None, file, {})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        merge({}, None, tmp_path / "none.yaml", {})


def test_epochs_and_steps_exclude_each_other():
    with pytest.raises(ConfigurationError, match="give one of them"):
        merge({"epochs": 1.0, "steps": 10}, environment={})


def test_a_plain_path_is_a_sqlite_file(monkeypatch):
    assert database_url("runs/a.db") == "sqlite:///runs/a.db"
    assert database_url("postgresql+psycopg://host/db") == "postgresql+psycopg://host/db"
    monkeypatch.setenv("AUTOPEFT_DB", "b.db")
    assert database_url(None) == "sqlite:///b.db"
    with pytest.raises(ConfigurationError):
        database_url("sqlite:c.db")


def test_artifacts_lie_beside_the_database(tmp_path, monkeypatch):
    assert artifact_root(f"sqlite:///{tmp_path}/a.db") == tmp_path / "a.artifacts"
    monkeypatch.setenv("AUTOPEFT_ARTIFACTS", str(tmp_path / "shared"))
    assert artifact_root("postgresql://host/db") == tmp_path / "shared"
