"""Task files of one's own: which are read, and what is refused before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

from llm_jax.config import UserError
from llm_jax.evals.tasks import catalog
from llm_jax.evals.tasks.catalog import Settings, load_tasks
from llm_jax.evals.tasks.harness import check_tasks

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["a", "b"]
doc_to_target: 0
"""


def write_task(folder: Path, name: str = "own", file: str | None = None) -> Path:
    """A task whose data are JSON lines in a file called .json."""
    folder.mkdir(exist_ok=True)
    data = folder / "rows.json"
    data.write_text("".join(json.dumps({"question": f"{n}"}) + "\n" for n in range(3)))
    path = folder / f"{file or name}.yaml"
    path.write_text(CHOICE.format(name=name, data=data))
    return path


def test_a_single_file_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "_texts", tuple)  # lm-eval's 14,000 files
    file = write_task(tmp_path / "own")
    (file.parent / "other.yaml").write_text("task: other")
    assert check_tasks(["own"], file) == []
    assert len(load_tasks(["own"], Settings(include=file)).tasks["own"].task_docs) == 3
    with pytest.raises(UserError, match="There is no task 'other'"):
        check_tasks(["other"], file)
    with pytest.raises(UserError, match="write blanks between names: own copying_en"):
        check_tasks(["own,copying_en"], file)


def test_data_beside_a_task_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_texts", tuple)
    folder = write_task(tmp_path / "own").parent
    assert check_tasks(["own"], folder) == []  # rows.json is no JSON, but lines of it
    with pytest.raises(UserError, match=r"rows\.json"):
        check_tasks(["rows"], folder)
    with pytest.raises(UserError, match=r"rows\.json"):
        check_tasks(["own"], [folder, folder / "rows.json"])


def test_a_name_that_two_files_have_is_refused(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "own").parent
    assert check_tasks(["own"], [folder, folder / "own.yaml"]) == []  # one file, given twice
    write_task(folder, "own", "again")
    with pytest.raises(UserError, match="Two files of --include define task 'own'"):
        check_tasks(["own"], folder)
    (folder / "again.yaml").unlink()
    other = write_task(tmp_path / "other").parent
    with pytest.raises(UserError, match="Two files of --include define task 'own'"):
        check_tasks(["own"], [folder, other])
    assert check_tasks(["copying_en"], [folder, other]) == []


@pytest.mark.slow  # reads lm-eval's index of 14,000 tasks
def test_a_group_of_ones_own_may_hold_tasks_of_lm_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    (tmp_path / "mine.yaml").write_text("group: mine\ntask: [copying_en, lambada_openai]\n")
    (tmp_path / "wrong.yaml").write_text("group: wrong\ntask: [copying_en, lambada_opena]\n")
    with pytest.raises(UserError, match="The data of task 'mine' are not at hand"):
        load_tasks(["mine"], Settings(include=tmp_path))
    with pytest.raises(UserError, match="'wrong' names task 'lambada_opena': did you mean"):
        load_tasks(["wrong"], Settings(include=tmp_path))
