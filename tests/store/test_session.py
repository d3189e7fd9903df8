import gc
import subprocess
import sys
from pathlib import Path

import pytest

from sk_aft.store import FeatureStore
from sk_aft.store import _session as session


@pytest.fixture(autouse=True)
def _new_session(monkeypatch):
    """A process in which nothing happened yet, whose directory is left for the exit handler."""
    monkeypatch.setattr(session, "_directory", None)
    monkeypatch.setattr(session, "_tokens", {})


def function(rows):
    return rows


class Callable:
    def __call__(self, rows):
        return rows


class Slotted:
    """Cannot be weakly referenced."""

    __slots__ = ()

    def __call__(self, rows):
        return rows


def test_a_process_has_one_temporary_store():
    store = session.session_store()
    assert isinstance(store, FeatureStore)
    assert session.session_store() == store
    assert store.path.is_dir()


def test_the_store_is_private_to_its_user():
    assert session.session_store().path.stat().st_mode & 0o077 == 0


def test_a_store_that_was_removed_is_made_again():
    first = session.session_store()
    first.path.rmdir()
    second = session.session_store()
    assert second.path.is_dir()
    assert second != first


def test_a_function_has_one_token_and_another_function_another():
    token = session.session_token(function)
    assert session.session_token(function) == token
    assert session.session_token(lambda rows: rows) != token
    assert len({session.session_token(f) for f in (function, Callable(), Slotted(), print)}) == 4


def test_a_token_dies_with_its_function():
    """Another function may get the same address, and must not get the features."""
    model = Callable()
    session.session_token(model)
    del model
    gc.collect()
    assert not session._tokens


def test_a_function_that_has_no_weak_reference_is_kept_alive_instead():
    model = Slotted()
    token = session.session_token(model)
    del model
    gc.collect()
    ((remembered, kept),) = session._tokens.values()
    assert remembered == token
    assert isinstance(kept, Slotted)


def test_a_copy_is_recognised_while_its_session_lives():
    original, copy = Callable(), Callable()
    state = session.session_state([original])
    session.adopt_session([copy], state)
    assert session.session_token(copy) == session.session_token(original)
    assert str(session.session_store().path) == state["directory"]


def test_a_copy_is_a_stranger_where_the_session_is_over():
    original, copy = Callable(), Callable()
    state = session.session_state([original])
    session.session_store().path.rmdir()
    session.adopt_session([copy], state)
    assert session.session_token(copy) != session.session_token(original)


def test_a_function_that_is_known_keeps_its_token():
    token = session.session_token(function)
    state = {**session.session_state([function]), "tokens": ["of another session"]}
    session.adopt_session([function], state)
    assert session.session_token(function) == token


def test_no_functions_need_no_session():
    assert session.session_state([]) == {}
    session.adopt_session([], {})
    assert session._directory is None


def test_the_store_is_gone_when_the_process_is():
    code = "from sk_aft.store._session import session_store as s; s().register_model({}); "
    code += "(s().path / 'x').touch(); print(s().path)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    path = Path(result.stdout.strip())
    assert path.name.startswith("sk_aft_")
    assert not path.exists()
