"""The training engine: loop, schedules, momentum encoder, checkpoints, distribution, logging."""
