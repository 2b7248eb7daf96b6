"""The two things that are trained, each as the loop wants it: mlm and nli. Knows the model and the data."""
