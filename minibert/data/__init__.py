"""From text to tensors: files, formats, sources; articles and pairs; batches. Knows nothing of the model."""
