"""What people write instead: each mistake is a change of the package's own solution, what it does, and a question.

A change is "what stands there => what stands there instead", several of them parted by ";;", in the solution as
`minibert.exercises.sources.answer` has it. A message says what a layer does, never what to write.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Mistake(NamedTuple):
    """A row of the table below."""

    part: str
    change: str
    behaviour: str
    question: str


SDPA = (
    "F.scaled_dot_product_attention(query, key, value, attn_mask=self.allowed(attention_mask),"
    " dropout_p=self.dropout_p if self.training else 0)"
)
WEIGHTS = "self.weights(hidden, attention_mask)"
DROPPED = f"F.dropout({WEIGHTS}, self.dropout_p, self.training)"

# Changes that are made before any other, and change no number: attention by its formula.
WRITTEN_OUT = {"SelfAttention": f"{SDPA} => {DROPPED} @ value"}

MASKING = "if allowed is not None:\n            scores = scores.masked_fill(~allowed, -math.inf)\n        "
SOFTMAX = "return scores.softmax(dim=-1)"
SUM = "self.sum(input_ids, token_type_ids)"
SEGMENTS = "(types.weight[0] if token_type_ids is None else types(token_type_ids))"
NORM = f"self.norm({SUM}) => (lambda x: (x - x.mean(-1, keepdim=True)) / %s * self.norm.weight + self.norm.bias)({SUM})"
AFTER_ATTENTION = "self.attention_norm(hidden + self.dropout(self.attention(hidden, attention_mask)))"
AFTER_FEED_FORWARD = "self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))"
CHOSEN = "torch.rand(input_ids.shape, generator=generator) < rate"
FATE = "fate = torch.rand(input_ids.shape, generator=generator)"
REPLACED = "(fate >= MASK_SHARE) & (fate < MASK_SHARE + RANDOM_SHARE)"
MLM_LOSS = "F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)"
MEAN = "(hidden * weights).sum(dim=1) / weights.sum(dim=1)"
FEATURES = "torch.cat([u, v, (u - v).abs(), *([u * v] if product else [])], dim=-1)"
CHECK, CHECKED = "_check(hidden, attention_mask)\n", "What has to happen if a sentence has no token, or the shapes differ?"
DECAY = "(total_steps - step) / max(1, total_steps - warmup)"

MISTAKES = tuple(Mistake(*row) for row in (
    ("Embeddings", "words + positions => words", "positions are not added",
     "Would two words that change places get other vectors?"),
    ("Embeddings", "weight[:T] => weight[1:T + 1]", "positions are counted from 1", "Which row is the first token's?"),
    ("Embeddings", "weight[:T] => weight[:1]", "all tokens have the first position", "What tells the tokens' places apart?"),
    ("Embeddings", "weight[:T] => weight[:len(input_ids), None]", "a position belongs to the sentence's place in the batch",
     "Along which of (B, T, D) do positions run?"),
    ("Embeddings", f"{SEGMENTS} => types.weight[0]", "token_type_ids are ignored", "Which argument has nothing done with it?"),
    ("Embeddings", f" + {SEGMENTS} => ", "segments are not added", "How many vectors are summed in the paper's figure 2?"),
    ("Embeddings", "types.weight[0] if => 0 if", "without token_type_ids no segment is added",
     "What does None stand for, and is its vector zero?"),
    ("Embeddings", "types.weight[0] if => types.weight[1] if", "without token_type_ids all is the second sentence",
     "What does None stand for?"),
    ("Embeddings", "words + pos => words * words.shape[-1] ** 0.5 + pos", "words are multiplied by sqrt(D)",
     "Which paper does that, and is it BERT's?"),
    ("Embeddings", f"self.norm({SUM}) => {SUM}", "the sum is not normalised", "What happens between the sum and dropout?"),
    ("Embeddings", f"self.dropout(self.norm({SUM})) => self.norm(self.dropout({SUM}))", "dropout comes before the norm",
     "What comes last? How many zeros does a norm leave?"),
    ("Embeddings", f"self.dropout(self.norm({SUM})) => self.norm({SUM})", "there is no dropout",
     "What differs between training and evaluation?"),
    ("Embeddings", "self.dropout( => nn.functional.dropout(p=self.dropout.p, input=", "dropout happens in evaluation, too",
     "How does a function of torch.nn.functional know that you evaluate?"),
    ("Embeddings", "if longest < T => if False", "too long a sequence is no ValueError", "What is said of T and the table?"),
    ("Embeddings", NORM % "(x.var(-1, correction=0, keepdim=True).sqrt() + self.norm.eps)",
     "the norm's epsilon is added to the deviation", "Is epsilon within the root, or outside?"),
    ("Embeddings", NORM % "(x.var(-1, keepdim=True) + self.norm.eps).sqrt()", "the norm's variance is divided by D - 1",
     "Is a layer norm's variance an estimate from a sample, or the mean of D squares?"),
    ("Embeddings", NORM % "x.std(-1, correction=0, keepdim=True)", "the norm has no epsilon", "What else is in the root?"),

    ("SelfAttention", "math.sqrt(self.head_size) => math.sqrt(hidden.shape[-1])", "scores are divided by sqrt(D)",
     "Over how many numbers does one head's q . k sum?"),
    ("SelfAttention", " / math.sqrt(self.head_size) => ", "scores are not scaled", "What is the variance of q . k?"),
    ("SelfAttention", "math.sqrt(self.head_size) => self.head_size", "scores are divided by K, without the root",
     "What is q . k's variance, and what its deviation?"),
    ("SelfAttention", "/ math.sqrt => * math.sqrt", "scores are multiplied by sqrt(K)", "Should scores grow with K?"),
    ("SelfAttention", f"{MASKING}{SOFTMAX} => return scores.softmax(dim=-1) * (1 if allowed is None else allowed)",
     "the mask comes after the softmax", "What do the weights of a row with padding sum to?"),
    ("SelfAttention", "~allowed => allowed", "the mask is upside down: only padding is attended to", "What is True in it?"),
    ("SelfAttention", "-math.inf => 0", "padding has a score of 0", "What is exp(0)?"),
    ("SelfAttention", "-math.inf => -10000.0", "padding has a score of -10,000, or so", "Can no real score be below that?"),
    ("SelfAttention", "scores.masked_fill(~allowed, -math.inf) => scores + allowed", "the mask of 0 and 1 is added to scores",
     "By how much must a score fall for a weight of 0?"),
    ("SelfAttention", "if allowed is not None => if False", "the mask is ignored", "Which argument has nothing done with it?"),
    ("SelfAttention", "[:, None, None, :] => [:, None, :, None]", "queries are masked, not keys",
     "In (B, H, T, T), which T is asking, and which one is asked?"),
    ("SelfAttention", f"{SOFTMAX} => return scores.softmax(dim=-2)", "weights sum to 1 over the queries",
     "Which sums are 1: of weights[..., t, :], or of weights[..., t]?"),
    ("SelfAttention", f"{SOFTMAX} => return scores.softmax(dim=1)", "weights sum to 1 over the heads", "What is dim 1?"),
    ("SelfAttention", "query @ key.transpose => key @ query.transpose", "queries and keys have changed places",
     "Whose row is row t, the one who asks or the one who is asked?"),
    ("SelfAttention", "self.value(hidden) => hidden", "values are not projected", "How many linear layers are there?"),
    ("SelfAttention", "self.value(hidden) => self.key(hidden)", "keys are taken for values", "What are weights multiplied by?"),
    ("SelfAttention", "T, self.num_heads, self.head_size).transpose(1, 2) => self.num_heads, T, self.head_size)",
     "heads are cut by a view alone, which mixes tokens", "After your view, which token do the first D numbers belong to?"),
    ("SelfAttention", "context.transpose(1, 2).flatten(2) => context.reshape(len(context), context.shape[2], -1)",
     "heads are put together without moving them back", "In which order do H and T lie in memory at that point?"),
    ("SelfAttention", "T, self.num_heads, self.head_size).transpose(1, 2) => T, self.head_size, self.num_heads)"
     ".permute(0, 3, 1, 2)", "head h has the numbers h, h + H, h + 2H ...", "Which K numbers are the first head's?"),
    ("SelfAttention", "self.output(self.merge(context)) => self.merge(context)", "there is no output layer",
     "What becomes of the heads, once they are side by side?"),
    ("SelfAttention", f"{DROPPED} @ value => {WEIGHTS} @ value", "there is no dropout", "What is dropout_p for?"),
    ("SelfAttention", f"{DROPPED} @ => F.dropout({WEIGHTS}, self.dropout_p) @", "dropout happens in evaluation, too",
     "How does a function of torch.nn.functional know that you evaluate?"),
    ("SelfAttention", f"{DROPPED} @ value => F.dropout({WEIGHTS} @ value, self.dropout_p, self.training)",
     "what the heads give is dropped, not the weights", "What is forgotten: a number, or that a token was attended to?"),
    ("SelfAttention", f"{DROPPED} => {WEIGHTS};;self.output(self.merge(context)) =>"
     " F.dropout(self.output(self.merge(context)), self.dropout_p, self.training)",
     "the output is dropped, not the weights", "Whose dropout is the output's: the attention's, or the block's?"),
    ("SelfAttention", f"{DROPPED} => {WEIGHTS};;{SOFTMAX} => return F.dropout(scores, self.dropout_p, self.training)"
     ".softmax(dim=-1)", "scores are dropped, before the softmax", "What weight does a score of 0 get?"),
    ("SelfAttention", f"{DROPPED} => {WEIGHTS};;{SOFTMAX} => return F.dropout(scores.softmax(dim=-1), self.dropout_p,"
     " self.training)", "`weights` drops, too", "Do its rows sum to 1 in training?"),
    ("SelfAttention", f"{DROPPED} => (lambda w: w / w.sum(-1, keepdim=True).clamp(min=1e-9))({DROPPED})",
     "after dropout, weights are made to sum to 1 again", "What else is done with the weights that are kept?"),
    ("SelfAttention", "(self.head_size) => (self.head_size) + torch.ones_like(query[0, 0, :, :1] @ key[0, 0, :, :1].T)"
     ".triu(1) * -1e9", "nobody attends to later tokens", "Does BERT read from left to right?"),
    ("SelfAttention", "key.transpose(-2, -1) => key.detach().transpose(-2, -1)", "no gradient reaches the keys",
     "Where does your code leave the graph (detach, .data, no_grad, a new tensor of numbers)?"),

    ("FeedForward", "F.gelu( => F.relu(", "the activation is a ReLU", "What does the class's docstring ask for?"),
    ("FeedForward", "(hidden)) => (hidden), approximate='tanh')", "the GELU is the tanh approximation", "Which GELU is it?"),
    ("FeedForward", "F.gelu(self.intermediate(hidden)) => (lambda x: x * torch.sigmoid(1.702 * x))(self.intermediate(hidden))",
     "the GELU is x * sigmoid(1.702 x)", "What is Phi exactly?"),
    ("FeedForward", "F.gelu(self.intermediate(hidden)) => self.intermediate(hidden)", "there is no activation",
     "What are two linear layers without anything between them?"),
    ("FeedForward", "self.output(F.gelu(self.intermediate(hidden))) => F.gelu(self.output(self.intermediate(hidden)))",
     "the GELU comes last", "What stands between the two layers?"),
    ("FeedForward", "self.output(F => hidden + self.output(F", "what came in is added here, too", "Who adds it?"),
    ("FeedForward", "self.output(F.gelu(self.intermediate(hidden))) => self.output(F.dropout(F.gelu(self.intermediate("
     "hidden)), 0.25, self.training))", "there is dropout between the two layers", "Where does this class keep a rate?"),

    ("EncoderBlock", f"{AFTER_ATTENTION} => hidden + self.dropout(self.attention(self.attention_norm(hidden), attention_mask))"
     f";;{AFTER_FEED_FORWARD} => hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))",
     "each norm stands before its part (pre-norm)", "Where are the norms in the drawing?"),
    ("EncoderBlock", f"{AFTER_ATTENTION} => hidden + self.attention_norm(self.dropout(self.attention(hidden, attention_mask)))"
     f";;{AFTER_FEED_FORWARD} => hidden + self.feed_forward_norm(self.dropout(self.feed_forward(hidden)))",
     "what is added is normalised, not the sum", "Which arrow goes into the norm?"),
    ("EncoderBlock", "hidden + self.dropout(self.attention => self.dropout(self.attention", "attention's input is not added",
     "What does the line below the attention in the drawing carry?"),
    ("EncoderBlock", "hidden + self.dropout(self.feed => self.dropout(self.feed", "the feed-forward's input is not added",
     "What does the second line of the drawing carry?"),
    ("EncoderBlock", "(hidden + self.dropout(self.attention(hidden, attention_mask)) => (self.dropout(self.attention(hidden,"
     " attention_mask));;(hidden + self.dropout(self.feed_forward(hidden)) => (self.dropout(self.feed_forward(hidden))",
     "nothing is added: there is no residual", "What do the lines below the parts carry?"),
    ("EncoderBlock", f"hidden = {AFTER_ATTENTION} => first = hidden;;return => hidden = {AFTER_ATTENTION}\n        return"
     ";;hidden + self.dropout(self.feed => first + self.dropout(self.feed",
     "the block's own input is added a second time", "What was normalised last, when the second sum is made?"),
    ("EncoderBlock", "(hidden, attention_mask)) => (hidden))", "the mask is not passed on", "Who needs attention_mask?"),
    ("EncoderBlock", "self.feed_forward_norm( => self.attention_norm(", "one norm is used twice", "How many norms are there?"),
    ("EncoderBlock", "self.feed_forward_norm( => (", "the second sum is not normalised", "What does the drawing end with?"),
    ("EncoderBlock", "self.attention_norm( => (", "the first sum is not normalised", "What comes after the first (+)?"),
    ("EncoderBlock", "hidden + self.dropout(self.attention(hidden, attention_mask)) => self.dropout(hidden + self.attention("
     "hidden, attention_mask));;hidden + self.dropout(self.feed_forward(hidden)) => self.dropout(hidden + self.feed_forward("
     "hidden))", "the sums are dropped, not what is added", "What way has a number through the block that nothing drops?"),
    ("EncoderBlock", "self.dropout( => (", "there is no dropout", "What differs between training and evaluation?"),
    ("EncoderBlock", "self.dropout(self.att => (self.att", "attention's output is not dropped", "How many dropouts are drawn?"),
    ("EncoderBlock", "self.dropout(self.feed => (self.feed", "the feed-forward's output is not dropped",
     "How many dropouts are in the drawing?"),
    ("EncoderBlock", "self.dropout( => nn.functional.dropout(p=self.dropout.p, input=", "dropout happens in evaluation, too",
     "How does a function of torch.nn.functional know that you evaluate?"),
    ("EncoderBlock", "self.feed_forward(hidden) => self.feed_forward(kept);;hidden = => kept, hidden = hidden,",
     "attention and feed-forward read the same input", "What does the feed-forward layer read?"),

    ("mask_tokens", " & ~special[input_ids] => ", "special tokens are chosen, too", "Can [SEP] or padding be guessed?"),
    ("mask_tokens", "chosen & (fate < MASK_SHARE) => chosen", "all that are chosen become [MASK], but for the random ones",
     "What do the tokens that stay look like?"),
    ("mask_tokens", "MASK_SHARE), => 2),;;torch.where(replaced => torch.where(replaced & False",
     "all that are chosen become [MASK]", "What has the model to expect of a token that is not hidden?"),
    ("mask_tokens", f"{REPLACED} => (fate >= MASK_SHARE)", "none of the chosen stays as it is", "What are the last 10 %?"),
    ("mask_tokens", "torch.where(replaced => torch.where(replaced & False", "none of the chosen gets a random token",
     "What are the second 10 %?"),
    ("mask_tokens", "< MASK_SHARE + RANDOM_SHARE => < MASK_SHARE + RANDOM_SHARE * (1 - MASK_SHARE)",
     "10 % of what is not [MASK] get a random token, 2 % in all", "10 % of what?"),
    ("mask_tokens", f"{REPLACED} => (torch.rand(input_ids.shape, generator=generator) < RANDOM_SHARE)",
     "the random 10 % are drawn apart, and partly from those that are [MASK]", "Can a token have two fates?"),
    ("mask_tokens", "labels = input_ids.masked_fill(~chosen, IGNORED) => labels = input_ids.clone()",
     "every token has a label", "At which positions is the loss computed?"),
    ("mask_tokens", "(~chosen, IGNORED) => (~chosen, 0)", "labels are 0 where nothing is asked", "Is 0 a token, too?"),
    ("mask_tokens", "masked), labels) => masked), masked.where(chosen, labels))", "labels are what is seen, not what was there",
     "What is to be guessed?"),
    ("mask_tokens", "ordinary_ids[draws] => draws", "random tokens are drawn from the whole vocabulary",
     "May a word be replaced by [CLS] or padding?"),
    ("mask_tokens", f"{CHOSEN} => torch.rand(len(input_ids), 1, generator=generator) < rate",
     "whole sequences are chosen, or none of it", "For what is one random number drawn?"),
    ("mask_tokens", f"{CHOSEN} => torch.rand(input_ids.shape[1], generator=generator) < rate",
     "the same places are chosen in all sequences", "For what is one random number drawn?"),
    ("mask_tokens", f"{FATE} => fate = torch.rand(len(input_ids), 1, generator=generator)",
     "the chosen tokens of a sequence share one fate", "How many fates are drawn?"),
    ("mask_tokens", f"{FATE} => fate = torch.rand(input_ids.shape[1], generator=generator)",
     "tokens at the same place share one fate", "How many fates are drawn?"),
    ("mask_tokens", "ids), input_ids.shape, generator=generator) => ids), (len(input_ids), 1), generator=generator)",
     "one random token is drawn for a whole sequence", "How many random tokens are drawn?"),
    ("mask_tokens", ", generator=generator => ", "the generator is not used", "Where do your random numbers come from?"),
    ("mask_tokens", " < rate => < 0.15", "the rate is always 15 %", "Which argument has nothing done with it?"),
    ("mask_tokens", "rate: float=0.15 => rate: float=0.8", "80 % are chosen, unless it is said", "80 % of what?"),
    ("mask_tokens", "masked = input_ids.masked_fill( => masked = input_ids.masked_fill_(", "the ids that come in are changed",
     "Who else has the tensor that you write to?"),
    ("mask_tokens", "if not len(ordinary_ids) => if False", "no ValueError is raised if all tokens are special",
     "What is there to draw from?"),

    ("MLMHead", "F.gelu(self.dense(hidden)) => self.dense(hidden)", "there is no GELU", "What follows the dense layer?"),
    ("MLMHead", "F.gelu(self.dense(hidden)) => F.gelu(self.dense(hidden), approximate='tanh')",
     "the GELU is the tanh approximation", "Which GELU has the feed-forward layer?"),
    ("MLMHead", "self.norm(F.gelu(self.dense(hidden))) => F.gelu(self.dense(hidden))", "there is no norm",
     "Which parameters of __init__ are not used?"),
    ("MLMHead", "self.norm(F.gelu(self.dense(hidden))) => F.gelu(self.norm(self.dense(hidden)))",
     "the norm comes before the GELU", "In which order does __init__ have them?"),
    ("MLMHead", "self.transform(hidden) => hidden", "hidden vectors are scored as they are", "What is self.dense for?"),
    ("MLMHead", ", self.bias) => )", "words have no bias", "Which parameter of __init__ is not used?"),
    ("MLMHead", "hidden), word_embeddings => hidden), word_embeddings.detach()", "the table gets no gradient from here",
     "Where does your code leave the graph? One table is to learn at both ends."),

    ("BertForMaskedLM", "self.bert(input_ids, attention_mask => self.bert(input_ids, None", "the mask is not passed on",
     "Who needs attention_mask?"),
    ("BertForMaskedLM", "attention_mask, token_type_ids) => attention_mask)", "token_type_ids are not passed on",
     "Which argument has nothing done with it?"),
    ("BertForMaskedLM", "self(input_ids, attention_mask) => self(input_ids)", "the loss does not use the mask",
     "What does the loss hand to the model?"),
    ("BertForMaskedLM", f"{MLM_LOSS} => F.cross_entropy(logits.flatten(0, 1), labels.flatten().clamp(min=0))",
     "the loss is over all positions", "What do labels of -100 mean?"),
    ("BertForMaskedLM", f"{MLM_LOSS} => F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction='sum')",
     "the loss is a sum, not a mean", "By what is it divided?"),
    ("BertForMaskedLM", f"{MLM_LOSS} => F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction='sum')"
     " / labels.numel()", "the sum is divided by all positions", "How many guesses are there?"),
    ("BertForMaskedLM", "logits.flatten(0, 1) => logits.softmax(-1).flatten(0, 1)", "probabilities go into the cross-entropy",
     "What does F.cross_entropy do first with what it is given?"),
    ("BertForMaskedLM", "logits.flatten(0, 1), labels.flatten() => logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()",
     "each token is to guess the next one's label", "Is this GPT or BERT? Where does a label stand?"),
    ("BertForMaskedLM", f"{MLM_LOSS} => {MLM_LOSS} / 0.6931471805599453", "the loss is in bits", "Which logarithm is it?"),
    ("BertForMaskedLM", f"{MLM_LOSS} => torch.stack([F.cross_entropy(a, b) for a, b in zip(logits, labels) if (b >= 0).any()])"
     ".mean()", "each sentence has its mean, and these are averaged", "Which guess counts for more than another one?"),
    ("BertForMaskedLM", ".word_embeddings.weight => .word_embeddings.weight.detach()", "the decoder's table gets no gradient",
     "Where does your code leave the graph? One table is to learn at both ends."),

    ("summed_loss", ", reduction='sum') => )", "the loss is a mean, not a sum", "What is to be done with all N losses?"),
    ("summed_loss", "(logits, labels => (logits.softmax(-1), labels", "probabilities go into the cross-entropy",
     "What does F.cross_entropy do first with what it is given?"),
    ("summed_loss", "labels).sum() => labels).float().mean()", "the share of right answers is given, not their number",
     "How many are right?"),
    ("summed_loss", "argmax => argmin", "the least likely class is taken for the answer", "Which class is the guess?"),

    ("mean_pooling", f"{MEAN} => hidden.mean(dim=1)", "the mean is over padding, too", "Which tokens are summed?"),
    ("mean_pooling", f"{MEAN} => (hidden * weights).mean(dim=1)", "the sum of real tokens is divided by T",
     "By how many tokens do you divide?"),
    ("mean_pooling", f"{MEAN} => (hidden * weights).sum(dim=1)", "there is a sum, and no mean", "By what do you divide?"),
    ("mean_pooling", f"{MEAN} => hidden.sum(dim=1) / weights.sum(dim=1)", "padding is summed, too", "What is in the sum?"),
    ("mean_pooling", f"{MEAN} => (hidden * weights)[:, 1:].sum(dim=1) / weights[:, 1:].sum(dim=1)",
     "the first token is left out", "Is [CLS] a real token?"),
    ("mean_pooling", "unsqueeze(-1).to(hidden.dtype) => unsqueeze(-1).float()", "bfloat16 becomes float32", "Which dtype?"),
    ("mean_pooling", f"{CHECK} => \n", "no ValueError is raised where there is no answer", CHECKED),
    ("max_pooling", "float('-inf') => 0.0", "padding takes part in the maximum", "What if padding's number is largest?"),
    ("max_pooling", "(hidden + padding.unsqueeze(-1)) => (hidden * attention_mask.unsqueeze(-1))",
     "padding takes part as 0", "What if all real numbers are negative?"),
    ("max_pooling", "max(dim=1).values => max(dim=-1).values", "the maximum is over the D numbers", "Which of B, T, D goes?"),
    ("max_pooling", "~attention_mask => attention_mask", "the maximum is over padding alone", "What is True in the mask?"),
    ("max_pooling", f"{CHECK} => \n", "no ValueError is raised where there is no answer", CHECKED),
    ("cls_pooling", "hidden[:, 0] => hidden[:, -1]", "the last token is taken", "Where does [CLS] stand?"),
    ("cls_pooling", "hidden[:, 0] => hidden[0]", "the first sentence is taken", "Which of B, T, D goes?"),
    ("cls_pooling", "hidden[:, 0] => hidden[..., 0]", "each token's first number is taken", "Which of B, T, D goes?"),
    ("cls_pooling", "hidden[:, 0] => (hidden * attention_mask.unsqueeze(-1)).sum(1) / attention_mask.sum(1, keepdim=True)",
     "it is the mean of all tokens", "What does [CLS] stand for here?"),
    ("cls_pooling", f"{CHECK} => \n", "no ValueError is raised where there is no answer", CHECKED),

    ("pair_features", "(u - v).abs() => u - v", "the difference has its sign", "Is the distance from v to u another one?"),
    ("pair_features", "(u - v).abs() => (u - v) ** 2", "the difference is squared", "What are the bars in |u - v|?"),
    ("pair_features", "(u - v).abs() => u * v", "there is a product where the distance belongs", "What are the three?"),
    ("pair_features", f"{FEATURES} => torch.cat([(u - v).abs(), u, v, *([u * v] if product else [])], dim=-1)",
     "the distance comes first", "In which order does the docstring have them?"),
    ("pair_features", "[u, v, => [v, u,", "v comes before u", "Which one is the premise's?"),
    ("pair_features", "*([u * v] if product else []) => u * v", "the product is always a feature", "When is it asked for?"),
    ("pair_features", "[u * v] if product else [] => []", "the product is never a feature", "When is it asked for?"),

    ("NLIClassifier", ".chunk(2) => .view(-1, 2, self.encoder.size).unbind(1)", "rows 0 and 1 are taken for a pair",
     "Where in 2B rows does the first hypothesis stand?"),
    ("NLIClassifier", "u, v = => v, u =", "premise and hypothesis have changed places", "Which half comes first?"),
    ("NLIClassifier", "self.dropout(features) => features", "there is no dropout", "What differs in training?"),
    ("NLIClassifier", "self.classifier(self.dropout(features)) => self.dropout(self.classifier(features))",
     "the logits are dropped", "What is dropped: what the layer sees, or what it says?"),
    ("NLIClassifier", "self.dropout( => nn.functional.dropout(p=self.dropout.p, input=", "dropout happens in evaluation, too",
     "How does a function of torch.nn.functional know that you evaluate?"),
    ("NLIClassifier", "self.classifier(self.dropout(features)) => self.classifier(self.dropout(features)).softmax(-1)",
     "probabilities come out, not logits", "What will the loss do with them?"),
    ("NLIClassifier", "self.score( => self.classifier(", "from ids to logits nothing is dropped", "Who has the dropout?"),
    ("NLIClassifier", "self.encoder(input_ids, attention_mask) => self.encoder(input_ids, attention_mask | True)",
     "the mask is not passed on", "Who needs attention_mask?"),

    ("schedule", "int(total_steps * warmup_ratio) => 0", "there is no warm-up", "What happens in the first steps?"),
    ("schedule", "return step / warmup\n => return (step + 1) / warmup\n;;return step / warmup if => return (step + 1)"
     " / warmup if", "warm-up is a step ahead", "What is the factor of the very first step?"),
    ("schedule", "int(total_steps * warmup_ratio) => round(total_steps * warmup_ratio)", "warm-up steps are rounded, not cut",
     "What is int(5.8)?"),
    ("schedule", f"{DECAY} => (total_steps - step) / total_steps", "the fall is reckoned from step 0, not from the peak",
     "What is the factor just after warm-up?"),
    ("schedule", f"{DECAY} => (total_steps - step - 1) / max(1, total_steps - warmup)", "the fall is a step ahead",
     "When is it 0: with the last step, or after it?"),
    ("schedule", f"{DECAY} => (total_steps - step) / total_steps if False else 1.0", "linear does not fall",
     "What does linear do after its peak?"),
    ("schedule", "max(0.0, => max(-1.0,", "after the last step the factor is negative", "What is a rate below 0?"),
    ("schedule", f"max(0.0, {DECAY}) => 0.5 + 0.5 * __import__('math').cos(3.141592653589793 * min(1.0, 1 - {DECAY}))",
     "the fall is a half cosine", "What is the factor halfway down?"),
    ("schedule", "warmup if step < warmup else 1.0 => max(1, warmup) if step < warmup else (total_steps - step) / max(1,"
     " total_steps - warmup)", "constant falls, too", "What does constant do after its peak?"),
    ("schedule", "return step / warmup if step < warmup else 1.0 => return 1.0", "constant has no warm-up",
     "Do both of them rise?"),
    ("schedule", "if name not in SCHEDULES => if False", "another name is no ValueError", "What if the name is misspelled?"),
))  # fmt: skip


def mutants(part: str) -> tuple[Mistake, ...]:
    """The mistakes that a part may have."""
    return tuple(mistake for mistake in MISTAKES if mistake.part == part)


def changed(source: str, *mistakes: Mistake) -> str:
    """A solution with some mistakes in it.

    Raises:
        LookupError: there is nothing that a change could be made to, or another one has been made there.
    """
    part = mistakes[0].part
    above, head, rest = source.partition(f"{'def' if part.islower() else 'class'} {part}(")
    body, *below = re.split(r"\n(?=class |def )", rest, maxsplit=1)
    for change in (WRITTEN_OUT.get(part, ""), *(mistake.change for mistake in mistakes)):
        for before, after in (each.split(" => ") for each in change.split(";;") if each):
            if before not in body:
                raise LookupError(f"{part} has nothing like {before!r}")
            body = body.replace(before, after)
    return above + head + "\n".join([body, *below])
