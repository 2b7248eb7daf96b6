"""The notebook "A4: Do you AGREE?" as functions: what minibert is compared with, in speed and in numbers.

Written with transformers and plain torch, as the notebook is, and with its habits: every sequence padded to the
maximum, logits at all positions, each side of a pair encoded by itself, `loss.item()` at each step, data through
`Dataset.map` and a `DataLoader`. tests/parity takes its steps from here: what is timed is what has been proven equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForMaskedLM, BertModel, DataCollatorForLanguageModeling


def mlm_model(vocab_size: int, max_length: int, dropout: float) -> BertForMaskedLM:
    """The small BERT of the notebook's Task 1."""
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=max_length,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForMaskedLM(config)


def mlm_loader(texts: list[str], tokenizer: Any, max_length: int, batch_size: int) -> DataLoader[Any]:
    """Task 1's batches: shuffled, masked by transformers' collator, padded to the maximum."""
    collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=True, mlm_probability=0.15)
    rows = tokenise(texts, tokenizer, max_length)
    return DataLoader(rows, batch_size=batch_size, shuffle=True, collate_fn=collator)


def tokenise(texts: list[str], tokenizer: Any, max_length: int) -> datasets.Dataset:
    """Task 1's `Dataset.map`."""
    raw = datasets.Dataset.from_dict({"text": texts})
    return raw.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=max_length, padding="max_length"),
        batched=True,
        remove_columns=raw.column_names,
    )


def mlm_step(model: nn.Module, batch: Mapping[str, Tensor], optimizer: Any, scheduler: Any, clip: float = 1.0) -> float:
    """One step of Task 1's training; returns its loss."""
    loss = model(**batch).loss
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    return loss.item()


class Siamese(nn.Module):
    """Task 2's classifier: mean pooling, [u, v, |u - v|], dropout, one linear layer.

    Args:
        folder: of the pretrained encoder.
        dropout: everywhere.
    """

    def __init__(self, folder: Path, dropout: float) -> None:
        super().__init__()
        self.encoder = BertModel.from_pretrained(
            folder, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
        )
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(3 * self.encoder.config.hidden_size, 3)

    def vector(self, side: Mapping[str, Tensor]) -> Tensor:
        """(B, T) ids and mask to (B, D)."""
        hidden = self.encoder(**side).last_hidden_state
        mask = side["attention_mask"].unsqueeze(-1).type_as(hidden)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)

    def forward(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
        """(B, 3) logits."""
        u, v = self.vector(a), self.vector(b)
        return self.fc(self.drop(torch.cat([u, v, torch.abs(u - v)], dim=1)))


def nli_loader(
    premises: list[str], hypotheses: list[str], labels: list[int], tokenizer: Any, max_length: int, batch_size: int
) -> DataLoader[Any]:
    """Task 2's batches: each side tokenised by itself and padded to the maximum."""
    raw = datasets.Dataset.from_dict({"premise": premises, "hypothesis": hypotheses, "label": labels})

    def tokenise_pair(batch: Mapping[str, list[str]]) -> dict[str, Any]:
        sides = {
            side: tokenizer(batch[column], truncation=True, max_length=max_length, padding="max_length")
            for side, column in (("a", "premise"), ("b", "hypothesis"))
        }
        ids = {f"{side}_{name}": values for side, encoded in sides.items() for name, values in encoded.items()}
        return {**ids, "labels": batch["label"]}

    rows = raw.map(tokenise_pair, batched=True, remove_columns=raw.column_names)
    rows.set_format(type="torch")

    def collate(features: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([feature[name] for feature in features]) for name in features[0]}

    return DataLoader(rows, batch_size=batch_size, shuffle=True, collate_fn=collate)


def nli_step(model: Siamese, batch: Mapping[str, Tensor], optimizer: Any, clip: float = 1.0) -> float:
    """One step of Task 2's training; returns its loss."""
    a, b = (
        {name.removeprefix(f"{side}_"): tensor for name, tensor in batch.items() if name.startswith(f"{side}_")}
        for side in "ab"
    )
    loss = nn.functional.cross_entropy(model(a, b), batch["labels"])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()
