"""The process that a program of a model runs in: it gives up what it may do, then runs the program.

`sandbox.py` starts it as `python -I -S -B -c SOURCE`, so it stands alone. It reads `program`,
`token` and `limits` as JSON, and answers with a line of JSON, what the kernel enforces
(`landlock`, its version or 0; `seccomp`, whether calls are filtered; `alone`, whether a new process
is refused), and then, if the program has run to its end, with the token.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = (
    "os.", "shutil.", "subprocess.", "socket.", "ctypes.", "signal.", "mmap.", "resource.", "pty.",
    "fcntl.", "tempfile.", "sqlite3.", "webbrowser.", "ftplib.", "smtplib.", "urllib.", "syslog.",
    "cpython.PyInterpreterState_New", "sys.remote_exec", "msvcrt.",
)  # fmt: skip
"""Audit events that are refused. An interpreter within this one would have no hook."""
HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")
UNHEARD = {
    "posix": (
        "mkfifo", "mknod", "memfd_create", "openpty", "posix_openpt", "login_tty", "pidfd_open",
        "unshare", "setns", "chroot", "setsid", "setpgid", "setpgrp", "setuid", "seteuid",
        "setreuid", "setresuid", "setgid", "setegid", "setregid", "setresgid", "setgroups",
        "initgroups", "sync", "setpriority", "nice", "tcsetpgrp", "sendfile", "copy_file_range",
        "splice",
    ),
    "_posixsubprocess": ("fork_exec",),
    "_signal": ("pidfd_send_signal",),
}  # fmt: skip
"""Functions that tell no audit hook what they do: module → names. They are replaced."""
CLOSED = ("_posixshmem", "_multiprocessing", "_gdbm", "_dbm", "_interpreters", "_xxsubinterpreters",
          "readline", "_tkinter", "_testcapi", "_testinternalcapi", "_testlimitedcapi",
          *UNHEARD)  # fmt: skip
"""Modules that are not imported, or not anew, since they write or start something unheard."""
LIBRARY = os.path.realpath(os.__file__).rpartition(os.sep)[0]
READABLE = (LIBRARY, "/usr/share/zoneinfo")
"""Folders whose files the program may read."""
SYSTEM = (sys.base_prefix, LIBRARY, "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime")
"""What the kernel lets be read: Python, and the libraries that its modules load."""
# Landlock's rights and calls (linux/landlock.h): the same numbers on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
READ_FILE, READ_DIR = 1 << 2, 1 << 3
RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Version → rights on files: to execute, write, read, remove, make, link, truncate, ioctl."""
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
CALLS = {
    # fork, vfork, clone, clone3, execve, execveat, mknod, mknodat, socket, socketpair, ptrace,
    # kill, tkill, tgkill, unshare, setns, memfd_create, bpf, io_uring_setup, mount, chroot
    "x86_64": (0xC000003E, (57, 58, 56, 435, 59, 322, 133, 259, 41, 53, 101, 62, 200, 234, 272, 308,
                            319, 321, 425, 165, 161)),
    # without fork, vfork and mknod, which it does not have
    "aarch64": (0xC00000B7, (220, 435, 221, 281, 33, 198, 199, 117, 129, 130, 131, 97, 268, 279,
                             280, 425, 40, 51)),
}  # fmt: skip
"""Machine → its number in linux/audit.h, and the system calls that are refused."""


def landlock() -> int:
    """Asks the kernel that this process only reads `SYSTEM`, makes, writes, removes and executes no
    file, has no TCP and sends no signal to others. Returns the version; 0 where it has none."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    version = int(libc.syscall(CREATE_RULESET, None, 0, 1))
    if version < 1:
        return 0
    files = RIGHTS[max(one for one in RIGHTS if one <= version)] & ~READ_DIR
    asked = [files, *([3] if version >= 4 else []), *([3] if version >= 6 else [])]
    rules = (ctypes.c_uint64 * len(asked))(*asked)
    ruleset = libc.syscall(CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    if ruleset < 0:
        return 0
    for path in SYSTEM:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:  # another system's
            continue
        # A packed struct of 64 and 32 bits.
        beneath = READ_FILE.to_bytes(8, sys.byteorder) + place.to_bytes(4, sys.byteorder)
        libc.syscall(ADD_RULE, ruleset, 1, ctypes.c_char_p(beneath), 0)
        os.close(place)
    zero = ctypes.c_ulong(0)
    libc.prctl(NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero)
    kept = libc.syscall(RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return version if kept else 0


def seccomp() -> bool:
    """Asks the kernel to refuse the system calls of `CALLS`. Returns whether it does."""
    import ctypes

    if os.uname().machine not in CALLS:
        return False
    machine, calls = CALLS[os.uname().machine]
    # Classic BPF, each (code, jump if true, jump if false, number): of the machine's number and of
    # the call's, the last but one line allows, the last refuses with EPERM.
    last = len(calls) + 5
    lines = [(0x20, 0, 0, 4), (0x15, 0, last - 2, machine), (0x20, 0, 0, 0)]
    lines += [(0x35, last - 4, 0, 0x40000000)]  # another set of numbers on x86-64
    lines += [(0x15, last - 5 - place, 0, call) for place, call in enumerate(calls)]
    lines += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050001)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in lines))
    program = struct.pack("@HP", len(lines), ctypes.addressof(code))
    libc, zero = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong(0)
    libc.prctl(NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero)
    return bool(libc.prctl(SECCOMP, ctypes.c_ulong(FILTER), ctypes.c_char_p(program)) == 0)


def is_alone() -> bool:
    """Whether the kernel refuses a new process."""
    try:
        child = os.fork()
    except OSError:
        return True
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return False


def _refused(*_: Any, **__: Any) -> None:
    raise PermissionError("a program under test may not do this")


def close_unheard() -> None:
    """Replaces the functions of `UNHEARD`."""
    for module, names in UNHEARD.items():
        for holder in (__import__(module), *((os,) if module == "posix" else ())):
            for name in names:
                if hasattr(holder, name):
                    setattr(holder, name, _refused)


def hook(event: str, arguments: Any) -> None:
    """Refuses what a program under test may not do."""
    if event == "open":
        path, mode, flags = arguments
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & WRITES:
            raise PermissionError("a program under test writes no files")
        if not isinstance(path, int) and not _readable(os.fsdecode(path)):
            raise PermissionError("a program under test reads no files but Python's own")
    elif event == "import":
        if arguments[0] in CLOSED:
            raise ImportError(f"a program under test may not import {arguments[0]}")
    elif event.startswith(EVENTS) and event not in HARMLESS:
        raise PermissionError("a program under test may not do this: " + event)


def _readable(path: str) -> bool:
    whole = os.path.realpath(path)
    return whole == os.devnull or any(whole.startswith(one + os.sep) for one in READABLE)


def main() -> None:
    asked = json.load(sys.stdin)
    quiet, said = os.open(os.devnull, os.O_RDWR), os.dup(1)
    kernel = {"landlock": landlock(), "seccomp": seccomp()}
    for name in [one for one in sys.modules if one.partition(".")[0] in ("ctypes", "_ctypes")]:
        del sys.modules[name]
    for name, value in asked["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    os.write(said, (json.dumps(kernel | {"alone": is_alone()}) + "\n").encode())
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    program, token, write = compile(asked["program"], "<answer>", "exec"), asked["token"], os.write
    close_unheard()
    sys.addaudithook(hook)
    try:
        exec(program, {"__name__": "answer"})
    except BaseException:
        os._exit(1)
    write(said, token.encode())
    os._exit(0)


if __name__ == "__main__":
    main()
