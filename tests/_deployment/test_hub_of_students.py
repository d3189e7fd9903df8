"""Students pushed to the hub and loaded from there."""

from sk_aft import AFTClassifier
from tests._deployment.students import OTHER_TEXTS, student

PUSH = """
from sk_aft import AFTClassifier
student = AFTClassifier.from_pretrained({folder!r})
print(student.push_to_hub("ann/intents", private=True, commit_message="First", dtype="float16"))
"""
LOAD = """
from sk_aft import AFTClassifier
from sk_aft.serving import load
rows = {rows!r}
print(AFTClassifier.from_pretrained("ann/intents").predict(rows).tolist())
print(load("ann/intents").predict(rows).tolist())
"""


def test_a_student_is_pushed_and_loaded(hub, tmp_path):
    fitted, _ = student("texts")
    fitted.save_pretrained(tmp_path / "texts")
    pushed = hub.run(PUSH.format(folder=str(tmp_path / "texts")))
    repository = hub.server.repositories["ann/intents"]
    commit, files = repository.branches["main"]
    assert pushed.lines == [f"{hub.server.url}/ann/intents/commit/{commit}"], pushed.error
    assert repository.private
    assert repository.messages == ["First"]
    assert files.keys() == {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert b"load('ann/intents')" in files["README.md"]
    loaded = hub.run(LOAD.format(rows=OTHER_TEXTS))
    (tmp_path / "float16").mkdir()
    fitted.save_pretrained(tmp_path / "float16", dtype="float16")
    expected = AFTClassifier.from_pretrained(tmp_path / "float16").predict(OTHER_TEXTS)
    assert loaded.lines == [str(expected.tolist())] * 2, loaded.error
