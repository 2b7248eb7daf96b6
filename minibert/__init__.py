"""minibert: a BERT small enough to read in an evening.

Read the package in this order: config, model/ (embeddings, attention, encoder, mlm, siamese), data/, training/,
tasks/, pretrained, evaluation.
"""

__version__ = "0.1.0"
