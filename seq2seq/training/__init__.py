"""How a model is trained: updates, schedules, evaluations on the way, checkpoints, alarms."""
