import re
from pathlib import Path

import pytest

from sk_aft.serving._hub import local_folder
from tests.hub_server import Repository

LOAD = "from sk_aft.serving._hub import local_folder\nprint(local_folder({arguments}))"


def test_a_directory_is_returned_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert local_folder(tmp_path) == tmp_path
    assert local_folder(str(tmp_path)) == tmp_path
    with pytest.raises(ValueError, match=r"revision='v1' was given, but .* is a directory"):
        local_folder(tmp_path, revision="v1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "The directory .* holds no config.json.*save_pretrained"),
        ("student.skops", "is a file: give the directory"),
        ("nowhere", "There is no directory .*nowhere.*'owner/name'"),
    ],
)
def test_what_is_no_folder_of_a_student_is_refused(tmp_path, given, message):
    (tmp_path / "student.skops").touch()
    with pytest.raises(FileNotFoundError, match=message):
        local_folder(tmp_path / given)


@pytest.mark.parametrize("given", ["intents", "./ann/intents", Path("ann/intents"), "ann/", ""])
def test_what_cannot_be_a_name_on_the_hub_is_not_looked_up(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There is no directory .*'owner/name'"):
        local_folder(given)


def test_revisions_and_the_cache(hub):
    repository = hub.server.repositories["ann/intents"] = Repository()
    commit = repository.commit("main", "first", {"config.json": b"1", "rows.csv": b"secret"})
    repository.commit("main", "second", {"config.json": b"2"})
    load = (
        "from sk_aft.serving._hub import local_folder\n"
        "def show(**at): print((local_folder('ann/intents', **at) / 'config.json').read_text())\n"
    )
    online = hub.run(
        f"{load}show()\nshow(revision={commit!r})\n"
        "print([p.name for p in local_folder('ann/intents').iterdir()])"
    )
    assert online.lines == ["2", "1", "['config.json']"], online.error
    n_requests = len(hub.server.requests)
    offline = hub.run(f"{load}show()\nshow(revision={commit!r})", HF_HUB_OFFLINE="1")
    assert offline.lines == ["2", "1"], offline.error
    local = hub.run(f"{load}show(local_files_only=True)")
    assert local.lines == ["2"], local.error
    assert len(hub.server.requests) == n_requests


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ("'ann/nothing'", {}, "FileNotFoundError.*no such repository.*spelling.*hf auth login"),
        ("'ann/secret'", {"token": "hf_other"}, "FileNotFoundError.*private.*token="),
        ("'ann/empty', revision='v9'", {}, "FileNotFoundError.*no revision 'v9'"),
        ("'ann/empty'", {}, "FileNotFoundError.*ann/empty.*holds no config.json"),
        ("'ann/new', local_files_only=True", {}, "OSError.*local_files_only=False"),
        ("'ann/new'", {"HF_HUB_OFFLINE": "1"}, "OSError.*HF_HUB_OFFLINE=1.*give its directory"),
        ("'ann/new'", {"endpoint": "http://127.0.0.1:9"}, "OSError.*Check the connection"),
    ],
)
def test_errors_say_what_to_do(hub, arguments, environment, message):
    hub.server.repositories.update(
        {"ann/secret": Repository(private=True), "ann/empty": Repository()}
    )
    hub.server.repositories["ann/empty"].commit("main", "first", {"weights.bin": b"1"})
    done = hub.run(LOAD.format(arguments=arguments), **environment)
    assert not done.lines
    assert re.search(message, done.error.splitlines()[-1]), done.error
    assert len(done.error.splitlines()[-1]) < 700


def test_a_token_opens_a_private_repository(hub):
    hub.server.repositories["ann/secret"] = Repository(private=True)
    hub.server.repositories["ann/secret"].commit("main", "first", {"config.json": b"{}"})
    given = hub.run(LOAD.format(arguments="'ann/secret', token='hf_of_the_owner'"), token="")
    assert len(given.lines) == 1, given.error
