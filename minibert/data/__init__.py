"""From text to tensors: files, formats, cards, sources, articles; toy; tokenizer, tokens; masking, batching.

Knows nothing of the model.
"""
