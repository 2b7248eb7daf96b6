"""Turn a pretrained encoder into a Siamese classifier of sentence pairs.

Example:
    python train_nli.py --data toy --encoder models/toy_mlm

Both sentences go through one encoder; a linear layer over [u, v, |u - v|] answers entailment, neutral or contradiction,
or what --labels names (Reimers & Gurevych 2019, section 3). What this script calls is in minibert/: the steps in
finetuning.py, the classifier in sbert.py, the loop in training.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from minibert.cli import parse_options, run
from minibert.options import NLIOptions, listed


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, then fine-tune."""
    finetune(parse_options(NLIOptions, arguments, str(__doc__)))


def finetune(asked: NLIOptions) -> None:
    """Model, data, training, saving.

    Raises:
        UserError: an option, a path or a file is wrong, or the loss diverges.
        Interrupted: a signal came, and the run's state is saved.
    """
    # torch loads only now: --help does not need it.
    from minibert import finetuning
    from minibert.card import write_card
    from minibert.data.pairs import Reading, load_training_pairs
    from minibert.distributed import rank, ranks, together
    from minibert.exercises.mine import using
    from minibert.hub import save_classifier, zip_classifier
    from minibert.progress import heading
    from minibert.run import open_run
    from minibert.training import train

    with ranks(), using(asked.mine) as mine, open_run(asked) as run:
        options = run.options
        with together():  # an error in one of several processes ends all
            # Model: the pretrained encoder with its tokenizer, and a classifier that has learned nothing yet.
            model, tokenizer = finetuning.make_classifier(options)
            mine.introduce(model, "finetuning", "training", "sbert")
            model.to(run.device)

            # Data: sentence pairs with a label each.
            pairs, validation = load_training_pairs(
                options.data,
                max_train=options.max_train,
                max_validation=options.max_validation,
                validation_share=options.validation_share,
                seed=options.seed,
                reading=Reading(listed(options.columns), options.label_names, trust_numbers=bool(options.labels)),
            )

            # A control, if it is given: what it knows is not to be learned again.
            control = finetuning.load_control(options)

            # The task: batches of pairs, their loss, and the accuracy on the validation pairs.
            task = finetuning.NLITask(model, tokenizer, pairs, validation, options, control)
            identity = finetuning.identify(task, pairs, validation, control) | mine.identity
            start = finetuning.introduce(task, pairs, validation, run)

        # Training: forward, backward, clip, step; log, validate, checkpoint. The best epoch is kept.
        train(task, run, identity=identity, start=start)

        # Saving: a folder that sentence-transformers reads, with the classifier beside it.
        if rank() == 0:
            if options.calibrate:
                heading("calibrated", f"logits divided by {task.calibrate():.3f}")
            save_classifier(run.folder, model, tokenizer, options.max_length, options.hypothesis_only)
            write_card(run.folder)
            if options.zip:
                heading("zipped", str(zip_classifier(run.folder)))
            run.finish()
            heading("next", options.followed_by())


if __name__ == "__main__":
    run(main)
