"""Exercises: skeletons, answers and mistakes, made of the package's own source (docs/exercises.md)."""
