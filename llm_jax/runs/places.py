"""How people name a run, and one of its checkpoints."""

from __future__ import annotations

from pathlib import Path

from llm_jax.config import UserError


def folder_and_step(place: str) -> tuple[Path, int | None]:
    """The run folder and the step that `RUN`, `RUN@STEP` or `RUN/checkpoints/STEP` name; None: the
    newest."""
    path = Path(place).absolute()
    run, at, step = str(path).rpartition("@")
    if at and step.isdecimal() and not path.exists():
        return Path(run), int(step)
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parent.parent, int(path.name)
    return path, None


def saved_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints of a run, ascending, by the names in its folder alone."""
    saved = folder / "checkpoints"
    names = [one.name for one in saved.iterdir()] if saved.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def run_file(folder: Path) -> Path:
    """The `run.json` of a run.

    Raises:
      UserError: there is no run in the folder.
    """
    file = folder / "run.json"
    if not file.is_file():
        raise UserError(f"There is no run in {str(folder)!r}: give the `out` folder of a run.")
    return file
