"""Where text comes from: files, the Python standard library, a tfds text set, or code of yours.

A source yields documents one at a time, and records in a `LeftOut` what it could not use. A
document must fit in memory; a corpus need not.
"""

from llm_jax.data.sources.document import Document, Source
from llm_jax.data.sources.files import FileSource
from llm_jax.data.sources.left_out import LeftOut
from llm_jax.data.sources.own import OwnSource
from llm_jax.data.sources.stdlib import StdlibSource
from llm_jax.data.sources.tfds_set import TfdsSource

__all__ = ["Document", "FileSource", "LeftOut", "OwnSource", "Source", "StdlibSource", "TfdsSource"]
