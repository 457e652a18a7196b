"""Parts that the learners of tasks with language share."""
