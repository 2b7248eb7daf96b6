# Everything a fresh machine needs is python3 (3.11 or newer) and make.
#   make demo   pretrain, fine-tune and evaluate on the built-in toy world, then compare two sentences
#   make strong the strong recipe on real text, its control, the model debiased by that, and what they get wrong:
#               WIKIPEDIA, VOCAB and SNLI may be paths, without them it is the Hub's; STS, a path, adds how well vectors
#               agree with people's scores
#   make check  after a change: the layers' oracles, and the fast path against the textbook
#   make test   the whole test suite
#   make lint   formatting, lint rules, types
#   make docs   the reference site, in build/site; open index.html

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: demo strong check test lint docs clean

demo: .venv/installed
	$(BIN)/python train_mlm.py --data toy --output models/toy_mlm --overwrite --epochs 1 --batch-size 32 \
	    --num-hidden-layers 1 --hidden-size 128 --intermediate-size 512 --dropout 0
	$(BIN)/python train_nli.py --data toy --encoder models/toy_mlm --output models/toy_nli --overwrite --epochs 6 \
	    --batch-size 64 --learning-rate 2e-3 --schedule linear --warmup-ratio 0.1 --max-length 24 --dropout 0
	$(BIN)/python evaluate.py --data toy --model models/toy_nli
	$(BIN)/python evaluate.py --model models/toy_nli \
	    --premise "A poodle is sleeping in the park." --hypothesis "An animal is resting."

WIKIPEDIA ?= hub
SNLI ?= hub
strong: .venv/installed
	$(BIN)/python train_mlm.py --recipe strong --data $(WIKIPEDIA) $(if $(VOCAB),--vocab $(VOCAB)) \
	    --output models/bert_mlm_strong
	$(BIN)/python train_mlm.py --recipe strong --start-from models/bert_mlm_strong --learning-rate 5e-4 \
	    --data $(patsubst hub,stanfordnlp/snli,$(SNLI)) --min-characters 0 --max-steps 320 \
	    --output models/bert_mlm_captions
	$(BIN)/python train_nli.py --recipe strong --data $(SNLI) --encoder models/bert_mlm_captions \
	    --output models/sbert_nli_strong
	$(BIN)/python evaluate.py --data $(SNLI) --model models/sbert_nli_strong
	$(if $(STS),$(BIN)/python evaluate.py --similarity $(STS) --model models/sbert_nli_strong)
	$(BIN)/python train_nli.py --recipe strong --data $(SNLI) --encoder models/bert_mlm_captions --hypothesis-only \
	    --output models/sbert_nli_control
	$(BIN)/python evaluate.py --data $(SNLI) --model models/sbert_nli_control
	$(BIN)/python train_nli.py --recipe strong --data $(SNLI) --encoder models/bert_mlm_captions \
	    --debias models/sbert_nli_control --output models/sbert_nli_debiased
	$(BIN)/python evaluate.py --data $(SNLI) --model models/sbert_nli_debiased
	$(if $(STS),$(BIN)/python evaluate.py --similarity $(STS) --model models/sbert_nli_debiased)
	$(BIN)/python benchmarks/mistakes.py --data $(SNLI) --models models/sbert_nli_strong \
	    --control models/sbert_nli_control
	$(BIN)/python benchmarks/mistakes.py --data $(SNLI) --models models/sbert_nli_debiased \
	    --control models/sbert_nli_control
	@echo "All figures of a model are in its card, as in models/sbert_nli_strong/README.md"

check: .venv/installed-dev
	$(BIN)/python -m pytest tests/layers tests/test_fast.py tests/test_imports.py

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv build *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing into .venv, which takes minutes: on Linux, pip brings torch with CUDA, several GB."
	$(PIP) --editable ".[plots]"
	touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable ".[dev]"
	touch $@ .venv/installed
