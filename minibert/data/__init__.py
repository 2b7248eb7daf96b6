"""From text to tensors: files, formats, sources, articles; toy; tokenizer, tokens; masking, batching.

Knows nothing of the model.
"""
