"""Eight fake CPU devices for every test, and one tiny real dataset."""

from __future__ import annotations

import gc
import os
import signal
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import jax
import psutil
import pytest
from hypothesis import Phase, settings
from tiny import VOCAB

from llm_jax.data.build import BuildSpec, VocabSpec, build
from llm_jax.data.sources import FileSource
from llm_jax.data.tokenizers import Tokenizer


def start_fake_devices() -> None:
    """Eight CPU devices, and machine code that is not optimised: compiling is most of the work.

    XLA reads its flags once, here; programs that tests start do not inherit them. Until JAX 0.10,
    XLA has older emitters of loops too, which compile the train step of 8 devices in half the time
    of those over MLIR; later ones end the process at this flag.
    """
    # Also of the programs that tests start: an installed libtpu chooses no platform here.
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")
    before = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = (
        f"{before} --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    )
    if jax.__version_info__ < (0, 11):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
    assert jax.device_count() == 8
    os.environ["XLA_FLAGS"] = before


start_fake_devices()


def give_children_ctrl_c() -> None:
    """Where these tests run in the background of a script, SIGINT is ignored from birth, and would
    be by every program that they start. One that is caught is the default again after an exec."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)


give_children_ctrl_c()


# An example that fails is shown as it was drawn: to shrink one took eight minutes once.
# `pytest --hypothesis-profile default` does it.
settings.register_profile(
    "drawn", deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
settings.load_profile("drawn")


def pytest_configure(config: pytest.Config) -> None:
    """What has been compiled once is kept between runs of the tests, with pytest's own cache.

    Each worker of pytest-xdist has a folder: JAX writes its entries in place.
    """
    if not config.pluginmanager.has_plugin("cacheprovider"):
        return
    name = f"jax-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir(name)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # Programs that tests start keep theirs beside it, and not in the user's cache folder.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir(f"children-{name}"))
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(2 << 30)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"


MOST_MEMORY = 4 << 30
"""Bytes of a process of tests, from which it forgets what it has compiled."""


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    """Compiled programs stay in memory otherwise, those of thousands of tests."""
    yield
    if psutil.Process().memory_info().rss > MOST_MEMORY:
        jax.clear_caches()
        gc.collect()


PACKAGES = ("json", "logging", "email", "concurrent/futures")


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built dataset of a few packages of the standard library, vocabulary `tiny.VOCAB`."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    out = tmp_path_factory.mktemp("tiny") / "dataset"
    spec = BuildSpec(
        sources=tuple(FileSource(stdlib / name, licence="PSF-2.0") for name in PACKAGES),
        tokenizer=VocabSpec(vocab_size=VOCAB),
        validation_fraction=0.05,
    )
    build(spec, out, lambda phase, done, total: None)
    return out


SOURCES = {"web": ("email", "json"), "code": ("concurrent/futures",), "books": ("logging",)}


@pytest.fixture(scope="session")
def three_sources(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> dict[str, Path]:
    """Name → dataset of different packages, with the tokenizer of `tiny_dataset`."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    folder = tmp_path_factory.mktemp("three")
    tokenizer = Tokenizer.load(tiny_dataset / "tokenizer.model")
    for name, packages in SOURCES.items():
        sources = tuple(FileSource(stdlib / one, licence="PSF-2.0") for one in packages)
        spec = BuildSpec(sources=sources, tokenizer=tokenizer, validation_fraction=0.05)
        build(spec, folder / name, lambda phase, done, total: None)
    return {name: folder / name for name in SOURCES}
