import pytest

from autopeft.errors import ConfigurationError
from autopeft.settings import SearchSettings, artifact_root, cache_folder, cache_quota_bytes, database_url, merge


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
        ("seed=-1", "expected a number of 0 or more"),
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
        ("a: [", r"cannot be read as YAML: expected the node content, .* in line 1, column 5$"),
        ("trials: [3]", "expected a whole number"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, words):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        merge({}, None, file, {})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot be read as YAML: No such file or directory$"):
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
    assert artifact_root("postgresql://host/db", tmp_path / "flag") == tmp_path / "flag"


def test_the_cache_has_a_folder_and_a_quota_that_the_environment_sets(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOPEFT_CACHE_DIR", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("AUTOPEFT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "autopeft"
    assert cache_quota_bytes() == 20 * 10**9
    monkeypatch.setenv("AUTOPEFT_CACHE_GB", "0.5")
    assert cache_quota_bytes() == 5 * 10**8
    for wrong in ("-1", "nan", "much"):
        monkeypatch.setenv("AUTOPEFT_CACHE_GB", wrong)
        with pytest.raises(ConfigurationError, match="expected a number of gigabytes"):
            cache_quota_bytes()


@pytest.mark.parametrize(("said", "meant"), [("true", True), ("on", True), (True, True), ("no", False), (False, False)])
def test_a_switch_is_on_or_off(said, meant):
    assert merge({"packing": said})[0].packing is meant
    with pytest.raises(ConfigurationError, match="expected true or false, got 'perhaps'"):
        merge({"packing": "perhaps"})
