"""Pretrain a small BERT with masked language modelling.

Example:
    python train_mlm.py --data toy --output models/toy_mlm

Some tokens of a text are hidden, and the model learns to guess them from the others (Devlin et al. 2019, section 3.1).
What this script calls is in minibert/: the steps in pretraining.py, the model in bert.py, the loop in training.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from minibert.cli import parse_options, run
from minibert.options import MLMOptions


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, then pretrain."""
    pretrain(parse_options(MLMOptions, arguments, str(__doc__)))


def pretrain(asked: MLMOptions) -> None:
    """Data, tokenizer, model, training, saving.

    Raises:
        UserError: an option, a path or a file is wrong, or the loss diverges.
        Interrupted: a signal came, and the run's state is saved.
    """
    # torch loads only now: --help does not need it.
    from minibert import pretraining
    from minibert.card import write_card
    from minibert.device import keep_freed_memory
    from minibert.distributed import rank, ranks, together
    from minibert.exercises.mine import using
    from minibert.hub import save_mlm
    from minibert.modern import make_masked_lm
    from minibert.progress import heading
    from minibert.run import open_run
    from minibert.training import train

    keep_freed_memory()
    with ranks(), using(asked.mine) as mine, open_run(pretraining.with_vocabulary(asked)) as run:
        options = run.options
        with together():  # an error in one of several processes ends all
            start_model = pretraining.load_start(options)  # of --start-from

            # Data: a sample of articles, some of them held out. Tokenizer: loaded, or learned from them.
            with pretraining.sample_articles(options) as articles:
                tokenizer = pretraining.make_tokenizer(options, articles)
                tokenised = articles.tokenised(tokenizer, None if options.blocks else options.max_length)

            # Model: embeddings, encoder blocks, and a head that guesses masked tokens.
            model = start_model or make_masked_lm(options.model_config(tokenizer.vocab_size, tokenizer.pad_id))
            mine.introduce(model, "pretraining", "training")
            model.to(run.device)

            # The task: masked batches, their loss, and the loss on the articles held out.
            task = pretraining.MLMTask(model, tokenised.train, tokenised.held_out, tokenizer, options)
            pretraining.prepare(task, options)
            identity = pretraining.identify(task, tokenised) | mine.identity
            start = pretraining.introduce(task, tokenised, run)

        # Training: forward, backward, clip, step; log, validate, checkpoint.
        train(task, run, identity=identity, start=start)

        # Saving: a folder that transformers reads, too.
        if rank() == 0:
            save_mlm(run.folder, model, tokenizer)
            write_card(run.folder)
            run.finish()
            heading("next", options.followed_by())


if __name__ == "__main__":
    run(main)
