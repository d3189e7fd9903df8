import gc
import shutil
import subprocess
import sys
from pathlib import Path

from sk_aft.store import FeatureStore
from sk_aft.store import _process as process


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
    store = process.process_store()
    assert isinstance(store, FeatureStore)
    assert process.process_store() == store
    assert store.path.is_dir()


def test_the_store_is_private_to_its_user():
    assert process.process_store().path.stat().st_mode & 0o077 == 0


def test_a_store_that_was_removed_is_made_again():
    first = process.process_store()
    shutil.rmtree(first.path)
    second = process.process_store()
    assert second.path.is_dir()
    assert second != first


def test_a_function_has_one_token_and_another_function_another():
    token = process.process_token(function)
    assert process.process_token(function) == token
    assert process.process_token(lambda rows: rows) != token
    assert len({process.process_token(f) for f in (function, Callable(), Slotted(), print)}) == 4


def test_a_token_dies_with_its_function():
    """Another function may get the same address, and must not get the features."""
    tokens, places = set(), set()
    for _ in range(1000):
        model = Callable()
        places.add(id(model))
        tokens.add(process.process_token(model))
        del model
    assert len(places) < len(tokens) == 1000


def test_a_function_that_has_no_weak_reference_is_kept_alive_instead():
    model = Slotted()
    place = id(model)
    process.process_token(model)
    del model
    gc.collect()
    assert place not in [id(other) for other in [Slotted() for _ in range(1000)]]


def test_a_copy_is_recognised_while_its_process_lives():
    original, copy = Callable(), Callable()
    state = process.process_state([original])
    process.inherit([copy], state)
    assert process.process_token(copy) == process.process_token(original)
    assert str(process.process_store().path) == state["directory"]


def test_a_copy_is_a_stranger_where_the_store_of_its_process_is_gone():
    original, copy = Callable(), Callable()
    state = process.process_state([original])
    shutil.rmtree(process.process_store().path)
    process.inherit([copy], state)
    assert process.process_token(copy) != process.process_token(original)


def test_a_function_that_is_known_keeps_its_token():
    token = process.process_token(function)
    state = {**process.process_state([function]), "tokens": ["of another process"]}
    process.inherit([function], state)
    assert process.process_token(function) == token


def test_a_process_keeps_its_store_when_its_workers_return_functions(tmp_path):
    store = process.process_store()
    of_worker = {"tokens": ["a token"], "directory": str(tmp_path), "process": -1}
    copy = Callable()
    process.inherit([copy], of_worker)
    assert process.process_token(copy) == "a token"
    assert process.process_store() == store


def test_no_functions_need_no_store():
    assert process.process_state([]) == {}
    process.inherit([], {})


def test_the_store_is_gone_when_the_process_is():
    code = "from sk_aft.store._process import process_store as s; s().register_model({}); "
    code += "(s().path / 'x').touch(); print(s().path)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    path = Path(result.stdout.strip())
    assert path.name.startswith("sk_aft_")
    assert not path.exists()
