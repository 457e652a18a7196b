"""Holds the parts that the learners of tasks with language share."""
