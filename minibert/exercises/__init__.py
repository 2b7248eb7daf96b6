"""Write a layer yourself, and be told which mistake it makes: `python -m minibert.exercises new|check` (docs/exercises.md).

Nothing is kept twice: skeletons, right answers and typical mistakes are all made of the package's own source.
"""
