"""One training loop for every task: optim, progress, checkpoint, loop. Knows neither model nor data."""
