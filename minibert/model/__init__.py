"""The network, one room a file: embeddings, attention, encoder, mlm, siamese."""
