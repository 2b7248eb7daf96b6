"""Models as folders, in Hugging Face's format: the one place that knows others' names for our weights.

    config.json, model.safetensors       BERT's configuration and weights
    tokenizer.json, tokenizer_config.json, vocab.txt

and, for a classifier, also:

    classifier.json, classifier.safetensors    labels, max length and features; the weights of the last layer
    modules.json, 1_Pooling/config.json, sentence_bert_config.json    what sentence-transformers wants to know

A folder needs nothing outside itself, so it can be moved or zipped. Weights are safetensors only: a pickle can run code
while it loads, and is never read. Loading is strict: what is missing or has another shape is an error, what asks for
another network is refused by name, and what is not used is named. docs/format.md lists every name.
"""

from minibert.hub.loading import from_pretrained, load_classifier, load_encoder, load_mlm, load_tokenizer
from minibert.hub.saving import save_classifier, save_mlm, zip_classifier

__all__ = [
    "from_pretrained",
    "load_classifier",
    "load_encoder",
    "load_mlm",
    "load_tokenizer",
    "save_classifier",
    "save_mlm",
    "zip_classifier",
]
