"""The form of every text that enters a script, a manifest, a request or a command line.

A field that is a name somewhere has that place's form. Paths and words of people's own may hold
anything that can be printed, and `shell_word` quotes them. Nothing is quoted in another way.
"""

from __future__ import annotations

import re
from typing import Any

from llm_jax.config import require

LONGEST = 1024
"""Bytes of a path or an address; Slurm cuts options off at 8 KiB, metadata keys end earlier."""
LONGEST_WORD = 65_536
"""Bytes of a word of the trainer's command, or of a variable; Linux takes twice as much."""
LABEL = r"[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?", "at most 63 letters, digits, and - _ . inside"
DNS_LABEL = (
    r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?",
    "at most 63 lower-case letters, digits and dashes",
)
DNS_NAME = (
    r"(?=.{1,63}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    "at most 63 lower-case letters, digits, dashes and dots",
)
NETWORK = r"[a-z0-9][-a-z0-9_./:]{0,254}", "a name, or projects/PROJECT/… of it"
IMAGE_PART = r"[a-z0-9]+([._-]+[a-z0-9]+)*"

FORMS: dict[str, tuple[str, str]] = {
    "job.reservation": LABEL,
    "job.image": (
        rf"(?=.{{1,512}}$)([A-Za-z0-9][-A-Za-z0-9.]*(:\d{{1,5}})?/)?{IMAGE_PART}(/{IMAGE_PART})*"
        r"(:\w[-\w.]{0,127})?(@sha256:[0-9a-f]{64})?",
        "REGISTRY/PATH:TAG, or …@sha256:DIGEST",
    ),
    "slurm.partition": (
        r"\w[-\w.]{0,63}(,\w[-\w.]{0,63}){0,15}",
        "a partition's name, or several with commas between",
    ),
    "slurm.account": (r"\w[-\w.@+]{0,127}", "an account's name"),
    "slurm.time_limit": (
        r"\d{1,9}(:\d{1,2}){0,2}|\d{1,9}:\d{1,2}:\d{1,2}|\d{1,5}-\d{1,2}(:\d{1,2}){0,2}"
        r"|(?i:infinite|unlimited)",
        "minutes, HH:MM:SS or DAYS-HH:MM:SS, such as 24:00:00",
    ),
    "slurm.switches": (
        r"\d{1,4}(@(\d{1,9}(:\d{1,2}){0,2}|\d{1,5}-\d{1,2}(:\d{1,2}){0,2}))?",
        "a number of switches, and a time if you like, such as 1@12:00:00",
    ),
    "slurm.memory": (r"[1-9]\d{0,8}[KMGT]?", "megabytes, or a size such as 4G"),
    "ray.address": (
        r"auto|(https?://)?([A-Za-z0-9]([-\w.]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:]{2,39}\])"
        r":\d{1,5}/?",
        "auto, HOST:PORT or http://HOST:PORT",
    ),
    "tpu.project": (
        r"([a-z0-9][-a-z0-9.]{0,60}:)?[a-z][-a-z0-9]{0,29}",
        "a project's id (not its title), such as my-project-123",
    ),
    "tpu.runtime_version": (r"[a-z0-9][-a-z0-9.]{0,127}", "a TPU software version"),
    "tpu.network": NETWORK,
    "tpu.subnetwork": NETWORK,
    "tpu.service_account": (
        r"default|[a-z0-9][-a-z0-9.]{0,62}@[a-z0-9][-a-z0-9.]{0,190}",
        "an e-mail address such as NAME@PROJECT.iam.gserviceaccount.com",
    ),
    "gke.namespace": DNS_LABEL,
    "gke.queue": DNS_NAME,
    "gke.service_account": DNS_NAME,
    "gke.priority": DNS_NAME,
    "gke.time_limit": (
        r"\d{1,9}(:\d{1,2}){0,2}|\d{1,5}-\d{1,2}(:\d{1,2}){0,2}",
        "minutes, HH:MM:SS or DAYS-HH:MM:SS, such as 24:00:00",
    ),
    "gke.placement_policy": DNS_LABEL,
    "gke.networks": (
        r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(,[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?){0,7}",
        "names of Network objects, with commas between",
    ),
    "skypilot.infra": (r"[\w*][-\w./*@:]{0,254}", "such as gcp/us-central1"),
}
"""`job.` or the back end, and the field → the regular expression that it matches, and in words."""
BUCKET = r"[a-z0-9][-a-z0-9_.]{0,220}[a-z0-9]|[a-z0-9]"
PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")


def shell_word(text: str) -> str:
    """`text` as one word of a shell.

    Double quotes with backslashes are what bash and Slurm's reader of `#SBATCH` lines understand
    alike: Slurm takes a backslash as an escape within single quotes too, and an escaped blank
    outside of quotes as the end of the word.
    """
    if PLAIN.fullmatch(text):
        return text
    return '"' + re.sub(r'([\\"$`])', r"\\\1", text) + '"'


def slurm_file(path: str) -> str:
    """`path` for an option in which Slurm replaces `%j` and the like."""
    return path.replace("%", "%%")


def kubernetes_word(text: str) -> str:
    """`text` for a command of a container, in which the kubelet replaces `$(NAME)`."""
    return text.replace("$", "$$")


def check_form(name: str, value: str | None, shown: str) -> None:
    """Raises `ConfigError` unless `value` is None or has the form `FORMS[name]`.

    Args:
      shown: the field, as the sentence calls it.
    """
    if value is not None:
        pattern, words = FORMS[name]
        fits = re.fullmatch(pattern, value, re.ASCII) is not None
        require(fits, f"{shown} is {value[:200]!a}: write {words}.")


def check_forms(owner: str, settings: Any, shown: str) -> None:
    """`check_form` of each field of `settings` that has a form."""
    for name, value in vars(settings).items():
        if f"{owner}.{name}" in FORMS:
            check_form(f"{owner}.{name}", value, f"{shown}.{name}")


def check_digests(digests: dict) -> None:
    """Raises `ConfigError` for what is not a file's name and its SHA-256."""
    for name, digest in digests.items():
        fits = re.fullmatch(r"[a-z]+(\.[a-z]+)+ [0-9a-f]{64}", f"{name} {digest}") is not None
        require(
            fits,
            f"job.sha256 has {str(name)[:80]!a}: {str(digest)[:80]!a}, which is not a file and its "
            "digest: leave it out, launch run fills it in.",
        )


def check_text(shown: str, text: str, most: int = LONGEST) -> None:
    """Raises `ConfigError` if `text` is not one line that can be printed, or is too long."""
    odd = next((c for c in text if not c.isprintable()), None)
    require(
        odd is None,
        f"{shown} is {text[:200]!a}: {odd!a} cannot be part of it, write one printable line.",
    )
    length = len(text.encode())
    require(length <= most, f"{shown} has {length:,} bytes: it must be at most {most:,}.")


def check_environment(env: dict) -> None:
    """Raises `ConfigError` for what is not a variable of one line."""
    for name, value in env.items():
        plain = isinstance(name, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None
        require(plain, f"job.env has the name {name!r}: use letters, digits and underscores.")
        require(
            isinstance(value, str) and "\n" not in value,
            f"job.env.{name} must be a string of one line.",
        )
        check_text(f"job.env.{name}", value, most=LONGEST_WORD)


def check_address(shown: str, address: str) -> None:
    """Raises `ConfigError` for a `gs://` address that cannot be a folder, or would be a pattern."""
    bucket, _, folder = address.removeprefix("gs://").partition("/")
    require(
        re.fullmatch(BUCKET, bucket) is not None,
        f"{shown} is {address!r}, whose bucket is {bucket!r}: use lower-case letters, digits and "
        "- _ . inside.",
    )
    parts = folder.rstrip("/").split("/")
    require(
        not {"", ".", ".."} & set(parts) and not set("*?[]#\\") & set(folder),
        f"{shown} is {address!r}: write gs://bucket/folder, without empty parts, '.', '..', and "
        "* ? [ ] # \\, which gcloud takes as patterns.",
    )
