"""From text to tensors: sources, toy, tokenizer, tokens, masking, batching. Knows nothing of the model."""
