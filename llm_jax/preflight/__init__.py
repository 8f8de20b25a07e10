"""A check before the launch: the run's own train step, compiled for TPUs that are not attached."""
