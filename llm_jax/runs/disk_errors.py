"""Errors of full, read-only or missing disks as one sentence, whichever library noticed them."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
# How safetensors and TensorStore print the system's error number.
NUMBER = re.compile(r"os error (\d+)|os_error_code='(\d+)'")


def system_error(error: BaseException, path: Path) -> OSError:
    """The same failure, which a library reported in its own way, as an `OSError` about `path`."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    code = _code(str(error))
    if code is None:
        return OSError(f"{path}: {_one_line(error)}")
    return OSError(code, os.strerror(code), str(path))


def _code(words: str) -> int | None:
    """The system's error number in a library's message; None if there is none."""
    if found := NUMBER.search(words):
        return int(found[1] or found[2])
    if "Not enough disk space" in words:  # tfds
        return errno.ENOSPC
    return next((code for code in errno.errorcode if os.strerror(code) in words), None)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def reason(error: BaseException) -> str:
    """The system's reason in one line, such as "No space left on device"."""
    if type(error) is Exception and error.__cause__:  # Orbax's wrapper around TensorStore's error
        error = error.__cause__
    found = NUMBER.search(str(error))
    if isinstance(error, OSError) or found is None:
        return _one_line(error)
    return os.strerror(int(found[1] or found[2]))


def disk_sentence(error: OSError) -> str:
    """What happened, where, and what to do about it."""
    if error.errno is None:
        return f"A file could not be read or written ({_one_line(error)}): check its disk."
    name = error.filename  # or the number of a descriptor
    name = name if name is None or isinstance(name, int) else os.fsdecode(name)
    where = "A file" if name is None else repr(name)
    return f"{where} could not be read or written ({error.strerror}): {_way_out(error.errno)}."


def _way_out(code: int) -> str:
    if code in FULL:
        return "free space, or choose another disk, and run the same command again"
    if code in FORBIDDEN:
        return "change its permissions, or choose another path"
    if code in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return "check the path"
    return "check the disk or the network it is on"
