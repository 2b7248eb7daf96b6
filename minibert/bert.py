"""BERT: embeddings, a stack of encoder blocks, and a head that guesses masked tokens.

This is the model of figure 1 of "Attention is all you need" and section 3 of the BERT paper. Attention is left to
torch's kernel, whose formula `SelfAttention.weights` writes out; nothing else here is for speed. `minibert.fast`
computes the same numbers, with these same modules and less work.

Sizes: B sequences in a batch, T tokens in each, D hidden size, H heads of K = D / H numbers, F intermediate size,
V vocabulary, L blocks. `attention_mask` (B, T) is bool, True = a real token, False = padding; None = all are real.

Sources: Vaswani et al. 2017, "Attention is all you need"; Devlin et al. 2019, "BERT".
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.config import IGNORED, ModelConfig


class Embeddings(nn.Module):
    """What a token is, where it stands, and which sentence it belongs to: three vectors, summed and normalised.

    Positions are learned, one vector for each, so a model cannot read a sequence longer than the table.

    Source: Devlin et al. 2019, section 3 "Input/Output Representations" and figure 2.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(B, T) ids to (B, T, D) vectors.

        Args:
            input_ids: integers in [0, V).
            token_type_ids: (B, T), 0 = first sentence, 1 = second; None = all first.
        Raises:
            ValueError: T is more than the model has positions.
        """
        return self.dropout(self.norm(self.sum(input_ids, token_type_ids)))

    def sum(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Look up and add: (B, T) to (B, T, D). A model with other positions overrides this."""
        T, longest = input_ids.shape[1], self.position_embeddings.num_embeddings
        if longest < T:
            raise ValueError(f"a sequence of {T} tokens, but the model has {longest} positions")
        words = self.word_embeddings(input_ids)  # (B, T, D)
        positions = self.position_embeddings.weight[:T]  # (T, D), the same in every row
        types = self.token_type_embeddings
        return words + positions + (types.weight[0] if token_type_ids is None else types(token_type_ids))


class SelfAttention(nn.Module):
    """Multi-head self-attention: each token becomes a weighted mean of all tokens' values.

        softmax(q k^T / sqrt(K)) v, in H heads side by side, then one more linear layer

    with q, k, v (T, K) a head's queries, keys and values.

    Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_size = config.num_attention_heads, config.head_size
        self.dropout_p = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D). Padding is never attended to; the output at padding means nothing."""
        query, key, value = self.heads(hidden)  # (B, H, T, K) each
        context = F.scaled_dot_product_attention(
            query, key, value, attn_mask=self.allowed(attention_mask), dropout_p=self.dropout_p if self.training else 0
        )  # (B, H, T, K)
        return self.output(self.merge(context))

    def weights(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The formula that torch's kernel computes, written out: (B, T, D) to (B, H, T, T).

        Row t says how much token t attends to each token; it sums to 1.
        """
        query, key, _ = self.heads(hidden)
        scores = query @ key.transpose(-2, -1) / math.sqrt(self.head_size)  # (B, H, T, T)
        allowed = self.allowed(attention_mask)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf)
        return scores.softmax(dim=-1)

    def heads(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all heads: (B, T, D) to (B, H, T, K) each. Variants override this."""
        return self.split(self.query(hidden)), self.split(self.key(hidden)), self.split(self.value(hidden))

    def split(self, projected: Tensor) -> Tensor:
        """Cut the last dimension into heads: (B, T, D) to (B, H, T, K)."""
        B, T, _ = projected.shape
        return projected.view(B, T, self.num_heads, self.head_size).transpose(1, 2)

    def merge(self, context: Tensor) -> Tensor:
        """Put the heads side by side again: (B, H, T, K) to (B, T, D)."""
        return context.transpose(1, 2).flatten(2)

    def allowed(self, attention_mask: Tensor | None) -> Tensor | None:
        """Which keys may be attended to: (B, T) to (B, 1, 1, T), the same for every head and query.

        Raises:
            TypeError: the mask is not bool. (Torch's kernel would add a float one to the scores.)
        """
        if attention_mask is not None and attention_mask.dtype != torch.bool:
            raise TypeError(f"attention_mask is {attention_mask.dtype}, and has to be bool, True = a real token")
        return None if attention_mask is None else attention_mask[:, None, None, :]


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, applied to each token by itself.

    The GELU is the exact one, x * Phi(x), not the tanh approximation.

    Source: Vaswani et al. 2017, section 3.3; Devlin et al. 2019, appendix A.2 (GELU).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, F) -> (B, T, D)."""
        return self.output(F.gelu(self.intermediate(hidden)))


class EncoderBlock(nn.Module):
    """Attention, then feed-forward; the output of each is added to its input, and the sum is normalised ("post-norm").

        hidden ─┬─ attention ─ dropout ─(+)─ norm ─┬─ feed-forward ─ dropout ─(+)─ norm ─ next block
                └────────────────────────┘         └───────────────────────────┘

    Source: Vaswani et al. 2017, section 3.1 and figure 1, left.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        hidden = self.attention_norm(hidden + self.dropout(self.attention(hidden, attention_mask)))
        return self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))

    def attention_weights(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The attention weights of this block for its input `hidden`: (B, T, D) to (B, H, T, T)."""
        return self.attention.weights(hidden, attention_mask)


class Bert(nn.Module):
    """Embeddings and L encoder blocks: the encoder.

    There is no pooler: that tanh layer over [CLS] belongs to next-sentence prediction, which is not trained here.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderBlock(config) for _ in range(config.num_hidden_layers))
        initialise(self, config.initializer_range)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """(B, T) ids to (B, T, D), a vector for each token in its context."""
        hidden = self.embeddings(input_ids, token_type_ids)
        for block in self.layers:
            hidden = block(hidden, attention_mask)
        return hidden

    def attention_maps(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """How much each token attends to every token, in every head of every block: (B, T) to (L, B, H, T, T)."""
        hidden, maps = self.embeddings(input_ids), []
        for block in self.layers:
            maps.append(block.attention_weights(hidden, attention_mask))  # type: ignore[operator]
            hidden = block(hidden, attention_mask)
        return torch.stack(maps)


class MLMHead(nn.Module):
    """From a token's vector h to a score for each word of the vocabulary: E norm(gelu(W h + b)) + c.

    The last matrix, E, is the table of word embeddings itself ("tied"): a word's input and output vectors are one.

    Source: Devlin et al. 2019, and their code; Press & Wolf 2017, "Using the output embedding" (tying).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialise(self, config.initializer_range)

    def forward(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        """(..., D) to (..., V) logits. The encoder's table (V, D) is passed in, so there is only one such tensor."""
        return F.linear(self.transform(hidden), word_embeddings, self.bias)

    def transform(self, hidden: Tensor) -> Tensor:
        """Everything before the vocabulary matrix: (..., D) to (..., D)."""
        return self.norm(F.gelu(self.dense(hidden)))


class BertForMaskedLM(nn.Module):
    """An encoder with an MLM head: what train_mlm.py trains (Devlin et al. 2019, section 3.1 "Task #1")."""

    def __init__(self, bert: Bert) -> None:
        super().__init__()
        self.bert = bert
        self.head = MLMHead(bert.config)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """(B, T) ids to (B, T, V) logits."""
        hidden = self.bert(input_ids, attention_mask, token_type_ids)
        return self.head(hidden, self.bert.embeddings.word_embeddings.weight)

    def loss(self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats over the masked positions; `labels` (B, T) are -100 at all others."""
        logits = self(input_ids, attention_mask)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def initialise(module: nn.Module, std: float) -> None:
    """BERT's starting weights, in place: matrices and tables normal(0, std), biases 0, norms 1, the padding row 0.

    Source: Devlin et al. 2019's code (`initializer_range`), which also truncates the normal at two standard deviations.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear | nn.LayerNorm) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            nn.init.zeros_(part.weight[part.padding_idx])
