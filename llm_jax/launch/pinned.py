"""What hosts install, fixed when a job is launched: an image by digest, or code and its lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from llm_jax.config import UserError, require
from llm_jax.launch.code import CODE, check_code, digest, pack
from llm_jax.launch.folder import Folder
from llm_jax.launch.lock import EXTRAS, REQUIREMENTS, UV, Lock, keep_lock
from llm_jax.launch.records import load_job
from llm_jax.launch.spec import JobSpec


def pin(
    spec: JobSpec, say: Callable[[str], None], folder: Folder | None = None
) -> tuple[JobSpec, Lock | None]:
    """The job with the digests of what its hosts install, and the lock if code is sent.

    Args:
      folder: the output folder, whose lock is used again; None for a job that begins.

    Raises:
      ConfigError: the image is named by a tag.
      UserError: the code holds a secret, or cannot be locked.
    """
    check_image(spec.image)
    if spec.code is None:
        return replace(spec, sha256={}), None
    source = Path(spec.code)
    check_code(source, say)
    held = held_lock(folder, say) if folder is not None else None
    lock = keep_lock(source, EXTRAS[spec.slice_type.kind], held, say)
    digests = {
        CODE: digest(pack(source)),
        REQUIREMENTS: digest(lock.requirements.encode()),
        UV: digest(lock.uv.encode()),
    }
    return replace(spec, sha256=digests), lock


def check_image(image: str | None) -> None:
    """Raises `ConfigError` for an image that is named by a tag alone."""
    require(
        image is None or "@sha256:" in image,
        f"job.image is {image!r}, and a tag may name another image tomorrow: add the digest that "
        f"`docker buildx imagetools inspect {image}` shows, as NAME@sha256:DIGEST.",
    )


def held_lock(folder: Folder, say: Callable[[str], None]) -> Lock | None:
    """The lock that the job in the folder was launched with, None if there is none or not that."""
    held = folder.read(f"launch/{REQUIREMENTS}")
    if held is None:
        return None
    try:
        launched = load_job(folder)[0].sha256
    except UserError:
        launched = {}
    if digest(held) != launched.get(REQUIREMENTS):
        say(f"launch/{REQUIREMENTS} is not what the job was launched with: a new lock is made")
        return None
    return Lock(held.decode())
