"""Work cut into tasks, each a command that needs only a folder that all machines see.

A task reads what earlier ones wrote, and writes its own files, each whole or not at all. Run again,
it writes the same bytes. So tasks may run in any process, on any machine that sees the folder, and
one that died is run again alone.
"""
