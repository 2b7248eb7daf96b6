"""Write a layer yourself, and be told what a wrong one does: `python -m minibert.exercises new|check`.

Nothing is kept twice: skeletons, right answers and typical mistakes are made of the package's own source.
"""
