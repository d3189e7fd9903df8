import json
import re

import pytest

from sk_aft._deployment._push import push_folder

CONTENT = {
    "config.json": b'{"format": 1}',
    "model.safetensors": bytes(range(256)),
    "tokenizer.json": b"{}",
    "README.md": b"---\nlibrary_name: sk-aft\n---\n# A student\n",
    "onnx/model.onnx": b"graph",
    "onnx/parity.json": b"{}",
}
PUSH = (
    "from sk_aft._deployment._push import push_folder\nprint(push_folder({folder!r}, {arguments}))"
)


@pytest.fixture
def folder(tmp_path):
    for name, content in {**CONTENT, "training_rows.csv": b"secret"}.items():
        path = tmp_path / "student" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(tmp_path / "student")


def test_a_folder_is_pushed_without_other_files_and_loads_from_an_empty_cache(hub, folder):
    done = hub.run(PUSH.format(folder=folder, arguments="'ann/intents', private=True"))
    repository = hub.server.repositories["ann/intents"]
    commit, files = repository.branches["main"]
    assert done.lines == [f"{hub.server.url}/ann/intents/commit/{commit}"], done.error
    assert files == CONTENT
    assert repository.private
    assert repository.messages == ["Upload a student of sk-aft"]
    assert set(hub.server.cards) == {CONTENT["README.md"].decode()}
    loaded = hub.run(
        "import json, sys\n"
        "from sk_aft.serving._hub import local_folder\n"
        "folder = local_folder('ann/intents')\n"
        "files = {p.relative_to(folder).as_posix(): p.read_bytes().hex()\n"
        "         for p in folder.rglob('*') if p.is_file()}\n"
        "print(json.dumps(files))\n"
        "print(sorted({'torch', 'sklearn', 'scipy'} & set(sys.modules)))\n"
    )
    assert json.loads(loaded.lines[0]) == {name: text.hex() for name, text in CONTENT.items()}
    assert loaded.lines[1] == "[]"


def test_a_second_push_is_a_commit_on_the_branch_that_is_asked_for(hub, folder):
    hub.run(PUSH.format(folder=folder, arguments="'ann/intents'"))
    assert not hub.server.repositories["ann/intents"].private
    first = hub.server.repositories["ann/intents"].branches["main"]
    arguments = "'ann/intents', revision='v2', commit_message='Shorter texts'"
    push = PUSH.format(folder=folder, arguments=arguments)
    changed = f"open({folder + '/config.json'!r}, 'w').write('new')\n"
    done = hub.run(changed + push)
    branches = hub.server.repositories["ann/intents"].branches
    assert branches["main"] == first
    assert branches["v2"][1]["config.json"] == b"new"
    assert done.lines[-1].endswith(f"/commit/{branches['v2'][0]}"), done.error
    assert hub.server.repositories["ann/intents"].messages[-1] == "Shorter texts"


def test_errors_say_what_to_do(hub, folder):
    push = PUSH.format(folder=folder, arguments="'ann/intents'")
    refused = hub.run(push, token="hf_of_somebody")
    assert re.search(r"PermissionError: .*'ann/intents'.*hf auth login.*token=", refused.error)
    assert not hub.server.repositories
    nowhere = hub.run(push, endpoint="http://127.0.0.1:9")
    assert re.search(r"ConnectionError: .*HF_ENDPOINT", nowhere.error)


@pytest.mark.parametrize("name", ["intents", "ann/intents/2", "https://huggingface.co/ann/intents"])
def test_a_name_without_an_owner_is_refused_before_anything_is_sent(folder, name):
    with pytest.raises(ValueError, match="expected the form 'owner/name'"):
        push_folder(folder, name)
