"""The README's Python blocks run, one after the other, as a reader would run them."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_every_python_block_of_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 7
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    accuracy = float(capsys.readouterr().out.splitlines()[0].split()[-1])
    assert accuracy > 0.7
    assert len(names["student"].loss_curve_) == 2
    assert len(names["both"].predict(names["frame"])) == 60
    assert names["search"].best_params_.keys() == {"aftclassifier__transfer__probe_kd__beta"}


def test_the_example_of_the_page_on_speed_runs(capsys):
    page = README.parent / "docs" / "speed.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(block, str(page), "exec"), {})
    assert capsys.readouterr().out == "[1]\n"


def test_the_first_example_is_fifteen_lines_or_fewer():
    section = README.read_text(encoding="utf-8").split("## Fifteen lines")[1]
    block = section.split("```python\n")[1].split("```")[0]
    assert len(block.splitlines()) <= 15


def test_files_that_the_readme_shows_exist():
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", README.read_text(encoding="utf-8")):
        path, _, section = link.partition("#")
        assert (README.parent / path).exists(), link
        if section:
            lines = (README.parent / path).read_text(encoding="utf-8").splitlines()
            titles = [line.lstrip("# ").lower() for line in lines if line.startswith("#")]
            assert section in [re.sub(r"[^\w -]", "", t).replace(" ", "-") for t in titles], link
