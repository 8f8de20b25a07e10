"""Where the tasks of `data curate` and `data build` run, if not here: job arrays of Slurm, or Ray.

A task needs nothing but a folder that all machines see (`runs/tasks.py`).
"""
