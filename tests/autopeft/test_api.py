import pytest

from autopeft.api import record
from autopeft.errors import StoreError
from autopeft.store import Store


def test_of_two_searches_at_once_the_slower_gets_the_next_name(tmp_path, make_study):
    study = make_study(name="aspects-1")
    with Store.open(f"sqlite:///{tmp_path}/a.db", create=True) as store:
        assert record(store, study, named=False).name == "aspects-1"
        assert record(store, study, named=False).name == "aspects-2"
        assert store.study_names() == ["aspects-1", "aspects-2"]


def test_a_name_that_the_user_chose_is_never_changed(tmp_path, make_study):
    study = make_study(name="mine")
    with Store.open(f"sqlite:///{tmp_path}/a.db", create=True) as store:
        record(store, study, named=True)
        with pytest.raises(StoreError, match="mine"):
            record(store, study, named=True)
