"""The README's Python blocks run, one after the other, as a reader would run them."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
DOCS = README.parent / "docs"
GUIDE = DOCS / "guide"
PAGES = [path for folder in (DOCS, GUIDE, GUIDE / "models") for path in sorted(folder.glob("*.md"))]


def test_the_readme_is_short_and_so_are_its_sentences():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    prose = re.sub(r"^\|.*$|^#.*$|<!--.*?-->", "", prose, flags=re.MULTILINE)
    prose = re.sub(r"\]\([^)]*\)", "]", prose)
    sentences = re.split(r"(?<=[.?!:;])\s+|\n\n|^- ", prose, flags=re.MULTILINE)
    assert [one for one in sentences if len(one.split()) > 30] == []


def test_the_lines_of_the_readme_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(
        r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    names: dict = {}
    exec(compile(block, str(README), "exec"), names)
    assert capsys.readouterr().out.splitlines()[-1] == "['lost_or_stolen_card']"
    megabytes = sum(file.stat().st_size for file in (tmp_path / "intents").iterdir()) / 1e6
    assert megabytes < 10


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("speed.md", "[1]\n"),
        ("models/hugging_face.md", "(2, 384)\n"),
        ("models/predictors.md", "R2 of the student: 0.9\n"),
        ("models/your_own.md", "(100, 4)\n(100, 4)\n(100, 4)\n(100, 8)\n"),
        ("choosing_a_student.md", ""),
        ("training.md", ""),
        ("outside_python.md", ""),
        ("deployment.md", "['lost_or_stolen_card', 'exchange_rate']\n"),
        ("inspection.md", "['pca', 'pca-2', \"student's rows\"]\n(2, 4, 2)\n"),
    ],
)
def test_the_examples_of_a_page_run(name, printed, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some save students
    page = GUIDE / name
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(page), "exec"), {})
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_the_examples_of_fine_tuned_teachers_run_one_after_the_other(capsys):
    page = GUIDE / "fine_tuned_teachers.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    assert "probe-kd" in capsys.readouterr().out.splitlines()
    assert names["rows"].soft_targets.shape == (60, 3)
    assert names["pipe"][0].cv_scores_.keys() == {"pairs"}  # so few labels are not compared
    assert names["search"].best_params_.keys() == {"aftclassifier__beta"}
    assert names["student"].classes_.tolist() == ["bad", "good"]


@pytest.mark.slow
def test_the_examples_of_transfer_run_one_after_the_other(capsys):
    page = GUIDE / "transfer.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict = {}
    exec(compile(blocks[0], str(page), "exec"), names)
    (shown,) = re.findall(r"```text\n(Taught by .*)\n```", page.read_text(encoding="utf-8"))
    printed = capsys.readouterr().out.splitlines()[0]
    number = r"\d\.\d\d"
    assert re.sub(number, "", printed) == re.sub(number, "", shown)
    found, expected = (
        [float(text) for text in re.findall(number, line)] for line in (printed, shown)
    )
    assert found == pytest.approx(expected, abs=0.1)
    student = names["student"]
    assert student.transfer_method_ == "pooled-kd"
    assert [*student.teacher_weights_] == [
        "minilm_layer4",
        "minilm",
        "student's rows",
        "student's start",
    ]
    assert 0.7 < student.teacher_score_ < 0.95
    exec(compile(blocks[1], str(page), "exec"), names)
    assert names["search"].best_params_.keys() == {"aftclassifier__transfer"}


def test_what_the_page_about_privacy_says_of_a_vocabulary_is_true(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (GUIDE / "privacy.md").read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(block, "privacy.md", "exec"), names)
    (shown,) = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    printed = capsys.readouterr().out
    masked, of_public_texts, numbers = printed.removeprefix(shown).splitlines()
    assert printed.startswith(shown)
    assert (masked, of_public_texts, numbers) == ("False", "[]", "['40917733']")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "last_line"),
    [
        ("cascade.md", r"\['apple_pay_or_google_pay' 'age_limit'\]"),
        ("comparing.md", r"\['bayes', 'tf-idf'\]"),
        ("texts.md", r"\['\w+'\]"),
        ("images.md", r"\['.+'\]"),
        ("tables.md", r"\['yes'\]"),
        ("several_columns.md", r"\[2\]"),
        ("unlabelled_rows.md", r"\['\w+'\]"),
        ("scikit_learn.md", "2"),
        ("reproducibility.md", r"\['minilm'\]"),
        ("why_not_better.md", r"\[0\]"),
        ("../start.md", r"\['\w+'\]"),
        ("../index.md", r"\['\w+'\]"),
    ],
)
def test_the_examples_of_a_page_run_one_after_the_other(
    name, last_line, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    page = GUIDE / name
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    assert re.fullmatch(last_line, capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(
    "name", ["README.md", *(path.relative_to(README.parent).as_posix() for path in PAGES)]
)
def test_files_and_sections_that_a_page_links_to_exist(name):
    page = README.parent / name
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, section = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if section:
            lines = target.read_text(encoding="utf-8").splitlines()
            titles = [line.lstrip("# ").lower() for line in lines if line.startswith("#")]
            assert section in [re.sub(r"[^\w -]", "", t).replace(" ", "-") for t in titles], link
