"""Networks between a BERT and a ModernBERT, which only the ablation needs: trained as by train_mlm.py, never saved.

    python benchmarks/half_modern.py pre-norm --data wikipedia/ --vocab vocab.txt --output ablation/pre-norm ...

    pre-norm      a BERT whose norms stand before each part, with one more at the end
    gated         the same with gated feed-forward layers and without segments
    no-biases     a ModernBERT without biases (only with --architecture modernbert)

The flags are those of train_mlm.py. The folder keeps the run's options, figures and picture; for the weights there is
no name in Hugging Face's format, so they are not kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that it also runs from another folder

from minibert import cli
from minibert.bert import BertForMaskedLM, Embeddings, FeedForward, SelfAttention, initialise
from minibert.cli import parse_options
from minibert.config import ModelConfig, ModernBertConfig
from minibert.device import keep_freed_memory
from minibert.modern import ModernBert, make_masked_lm
from minibert.options import MLMOptions
from minibert.pretraining import MLMTask, make_tokenizer, prepare, sample_articles, with_vocabulary
from minibert.run import open_run
from minibert.training import train

NETWORKS = ("pre-norm", "gated", "no-biases")


def main() -> None:
    """The network's name, then train_mlm.py's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    network, flags = parser.parse_known_args()
    pretrain(network.network, parse_options(MLMOptions, flags, str(__doc__)))


def pretrain(network: str, asked: MLMOptions) -> None:
    """What train_mlm.py does, with another network, and without saving it."""
    keep_freed_memory()
    with open_run(with_vocabulary(asked)) as run:
        options = run.options
        with sample_articles(options) as found:
            tokenizer = make_tokenizer(options, found)
            articles = found.tokenised(tokenizer, None if options.blocks else options.max_length)
        model = make_network(network, options.model_config(tokenizer.vocab_size, tokenizer.pad_id)).to(run.device)
        task = MLMTask(model, articles.train, articles.held_out, tokenizer, options)
        prepare(task, options)
        identity = {"network": network, "articles": articles.identity["content"], "vocabulary": tokenizer.fingerprint()}
        train(task, run, identity=identity, start={"network": network, "unigram_loss": task.baseline()[0]})
        run.finish()


def make_network(network: str, config: ModelConfig) -> BertForMaskedLM:
    """A ModernBERT with some of its parts exchanged for BERT's; fast.py knows all of them."""
    if network == "no-biases":
        return make_masked_lm(ModernBertConfig(**{**vars(config), "bias": False}))
    bert = ModernBert(ModernBertConfig(**{**vars(config), "type_vocab_size": 0}))
    bert.embeddings = Embeddings(config)
    for layer in bert.layers:
        layer.attention = SelfAttention(config)
        if network == "pre-norm":
            layer.feed_forward = FeedForward(config)
    initialise(bert, config.initializer_range)
    if network == "gated":
        segments = bert.embeddings.token_type_embeddings.weight.requires_grad_(False)
        segments.zero_()  # what is always 0 is not there
    return BertForMaskedLM(bert)


if __name__ == "__main__":
    cli.run(main)
