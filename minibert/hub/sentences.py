"""How a folder makes one vector of a sentence: what sentence-transformers writes beside an encoder.

    modules.json                         the steps from a text to its vector, in their order
    sentence_bert_config.json            settings of the first step, the encoder, in its folder; older folders call it
                                         by the architecture (`ENCODER_FILES`)
    1_Pooling/config.json, 1_Dense/, 2_Normalize/config.json    settings of the others
    config_sentence_transformers.json    settings of the whole

Without modules.json it is the mean of the tokens' vectors, and the other files mean nothing.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from minibert.config import MOST_WIDTH
from minibert.errors import UserError
from minibert.files import is_file, read_json
from minibert.hub.added_tokens import SETTINGS
from minibert.hub.tables import Table, check_inside, read_optional
from minibert.hub.tokenization import TOKENIZER_CONFIG
from minibert.sbert import POOLINGS

MODULES, CONFIG = "modules.json", "config.json"

# The settings of the encoder: sentence-transformers reads the first of these that says anything.
ENCODER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

# The last names of the types that each step may have; the encoder's first ones were called by its architecture.
STEPS = {"Transformer": "Transformer", "BERT": "Transformer", "Dense": "Dense", "Pooling": "Pooling",
         "Normalize": "Normalize"}  # fmt: skip

# The packages that these types lie in, in all versions of sentence-transformers: `PACKAGE.Pooling`, or with the name of
# the file between them, `PACKAGE.pooling.Pooling`.
PACKAGES = (
    "sentence_transformers.models",
    "sentence_transformers.base.modules",
    "sentence_transformers.sentence_transformer.modules",
)

# What all versions of sentence-transformers call a pooling.
POOLING_FLAGS = {mode: f"pooling_mode_{mode}_token{'' if mode == 'cls' else 's'}" for mode in POOLINGS}

# The one Dense that minibert has: a projection of each token's vector, before pooling.
DENSE = {
    "bias": True,
    "activation_function": "torch.nn.modules.linear.Identity",
    "module_input_name": "token_embeddings",
    "module_output_name": "token_embeddings",
}

MODULE = Table(
    used={"type": "what the step is", "path": "the folder of its files", "name": "there may be no two of one"},
    only={"kwargs": ([], {}, None)},
    harmless={"idx": "the order of the list counts"},
)

WHOLE = Table(
    used={"prompts": "the text of the prompt that `default_prompt_name` names has to be empty",
          "default_prompt_name": "see `prompts`"},
    only={"truncate_dim": (None,), "model_type": ("SentenceTransformer",)},
    harmless={
        "__version__": "who wrote the folder",
        "requirements": "what other programs need",
        "similarity_fn_name": "how others compare vectors; `encode` only gives them",
    },
)  # fmt: skip

_NONE: tuple[Any, ...] = ({}, None)
ENCODER = Table(
    used={
        "max_seq_length": "tokens kept of each sentence",
        "do_lower_case": "refused if it is true and the tokenizer keeps case",
    },
    only={
        "transformer_task": ("feature-extraction",),
        "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
        "module_output_name": ("token_embeddings",),
        "processing_kwargs": _NONE,
        "query_expansion": (None,),
        "tokenizer_name_or_path": (None,),
        "model_args": _NONE,
        "model_kwargs": _NONE,
        "config_args": _NONE,
        "config_kwargs": _NONE,
        "tokenizer_args": _NONE,
        "processor_kwargs": _NONE,
    },
    harmless={
        "unpad_inputs": "the same numbers, faster",
        "query_length": "of `encode_query`, which minibert has not",
        "document_length": "of `encode_document`, which minibert has not",
    },
)

POOLING = Table(
    used={
        "pooling_mode": "one of mean, max and cls",
        **dict.fromkeys(POOLING_FLAGS.values(), "the same, as yes or no"),
    },
    only={
        "include_prompt": (True,),
        "pooling_mode_mean_sqrt_len_tokens": (False,),
        "pooling_mode_weightedmean_tokens": (False,),
        "pooling_mode_lasttoken": (False,),
    },
    harmless={
        "word_embedding_dimension": "the encoder knows it",
        "embedding_dimension": "the same",
    },
)

PROJECTION = Table(
    used={"in_features": "has to be what the encoder gives", "out_features": "the numbers of a projected vector"},
    only={**{name: (fine,) for name, fine in DENSE.items()}, "use_residual": (False,)},
)

NORMALIZE = Table(
    used={},
    only={"module_input_name": ("sentence_embedding",), "module_output_name": ("sentence_embedding", None)},
)


@dataclasses.dataclass(frozen=True)
class SentenceSettings:
    """How a folder makes one vector of a sentence.

    Attributes:
        max_length: tokens kept of each sentence.
        pooling: one of `POOLINGS`.
        normalize: whether vectors are scaled to length 1.
        dense: the subfolder with the projection of token vectors; "" = there is none.
        width: how many numbers a projected vector has; 0 = there is none.
        lowercase: whether texts are asked to be lower-cased first.
        ignored: names in the files that mean nothing to minibert.
    """

    max_length: int
    pooling: str = "mean"
    normalize: bool = False
    dense: str = ""
    width: int = 0
    lowercase: bool = False
    ignored: tuple[str, ...] = ()


def encoder_folder(folder: Path) -> Path:
    """Where the encoder's own files are: in the folder, or in that of the first module (`0_BERT`, `0_Transformer`)."""
    return folder / _modules(folder)["Transformer"] if is_file(folder / MODULES) else folder


def read_sentence_settings(folder: Path, positions: int, hidden_size: int) -> SentenceSettings:
    """What modules.json and its neighbours say; without them the mean, as sentence-transformers has it.

    Args:
        folder: the model's.
        positions: the longest sequence that the encoder reads.
        hidden_size: the numbers of a token's vector, D.
    Raises:
        UserError: a file is damaged, or asks for what minibert does not do.
    """
    encoder = encoder_folder(folder)
    tokenizer, unknown = read_optional(encoder / SETTINGS, TOKENIZER_CONFIG)
    ignored = [name for name in unknown if not name.endswith("_token")]  # such a one is an added token
    length = tokenizer.get("model_max_length", tokenizer.get("max_len"))  # the latter in older folders
    if not is_file(folder / MODULES):
        return SentenceSettings(_length(folder, length, positions), ignored=tuple(ignored))
    modules = _modules(folder)
    ignored += _check_whole(folder)
    values, unknown = _encoder_settings(encoder)
    ignored += unknown
    if values.get("max_seq_length") is not None:
        length = values["max_seq_length"]
    dense = modules.get("Dense", "")
    width = _projection(folder / dense / CONFIG, hidden_size) if dense else 0
    pooling, unknown = _pooling(folder / modules["Pooling"] / CONFIG)
    ignored += unknown
    if "Normalize" in modules:
        ignored += read_optional(folder / modules["Normalize"] / CONFIG, NORMALIZE)[1]
    return SentenceSettings(
        _length(encoder, length, positions), pooling, "Normalize" in modules, dense, width,
        lowercase=bool(values.get("do_lower_case")), ignored=tuple(ignored),
    )  # fmt: skip


def _encoder_settings(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What the first of `ENCODER_FILES` says that is not empty, and the names in it that mean nothing to minibert."""
    for name in ENCODER_FILES:
        values, unknown = read_optional(folder / name, ENCODER)
        if values:
            return values, unknown
    return {}, []


def _length(folder: Path, asked: Any, positions: int) -> int:
    if asked is None:
        return positions
    if type(asked) not in (int, float) or not asked >= 3 or (asked < positions and asked != int(asked)):
        raise UserError(f"{folder} asks for sentences of {asked!r:.60} tokens: [CLS], one token and [SEP] need 3")
    return int(min(asked, positions))


def _modules(folder: Path) -> dict[str, str]:
    """The steps from a text to its vector, and the subfolder of each."""
    file = folder / MODULES
    steps: list[tuple[str, str]] = []
    names: list[Any] = []
    for module in read_json(file, "", list):
        if not isinstance(module, dict) or not {"type", "path"} <= module.keys():
            raise UserError(f"{file} is not a list of modules with type and path")
        MODULE.check_all(file, module)
        check_inside(file, module["path"])
        steps.append((_step(file, module["type"]), module["path"]))
        names.append(module.get("name", len(names)))
    kinds, known = [step for step, _ in steps], list(dict.fromkeys(STEPS.values()))
    wanted = [step for step in known if step in ("Transformer", "Pooling") or step in kinds]
    if kinds != wanted or not all(path for _, path in steps[1:]):
        asked = " + ".join(path or step for step, path in steps)
        raise UserError(
            f"{file} asks for {asked:.200}: minibert knows only a Transformer, a Dense of token vectors, Pooling, and"
            " Normalize, the last three in subfolders"
        )
    if any(names.count(name) > 1 for name in names):
        raise UserError(f"{file} has two modules of one name, of which others use the last")
    return dict(steps)


def _step(file: Path, kind: object) -> str:
    """Which step a type is, from sentence-transformers itself: others may do anything under the same last name."""
    package, _, name = str(kind).rpartition(".")
    if name not in STEPS or not any(
        package in (known, f"{known}.{name.lower()}", f"{known}.{name}") for known in PACKAGES
    ):
        raise UserError(f"{file} asks for the module {kind!r:.60}: minibert knows only sentence_transformers' own"
                        f" {', '.join(STEPS)}")  # fmt: skip
    return STEPS[name]


def _check_whole(folder: Path) -> list[str]:
    """Refuse a prompt before every text, or vectors of which only the beginning is wanted; returns names not used."""
    file = folder / "config_sentence_transformers.json"
    values, unknown = read_optional(file, WHOLE)
    name, prompts = values.get("default_prompt_name"), values.get("prompts") or {}
    texts = {"query": "", "document": "", **prompts} if isinstance(prompts, dict) else {}
    if name is not None and (not isinstance(name, str) or texts.get(name, "unknown")):
        raise UserError(f"{file} asks for default_prompt_name {name!r:.60}: minibert puts no prompt before a text")
    return unknown


def _projection(file: Path, hidden_size: int) -> int:
    """The width of a Dense before pooling."""
    values = read_json(file, f"{MODULES} asks for it")
    defaults = {"activation_function": "torch.nn.modules.activation.Tanh", "module_input_name": "sentence_embedding"}
    PROJECTION.check_all(file, {**defaults, **values})
    width = values.get("out_features")
    if type(width) is not int or not 1 <= width <= MOST_WIDTH:
        raise UserError(f"{file} has the out_features {width!r:.60}, not a number from 1 to {MOST_WIDTH:,}")
    if values.get("in_features", hidden_size) != hidden_size:
        raise UserError(f"{file} has the in_features {values['in_features']!r:.60}: the encoder gives {hidden_size}")
    return width


def _pooling(file: Path) -> tuple[str, list[str]]:
    """One of `POOLINGS`, from today's `pooling_mode` or from yesterday's row of yes and no; and the names not used."""
    values = read_json(file, f"{MODULES} asks for it")
    flags = [name for name, chosen in values.items() if name.startswith("pooling_mode_") and chosen]
    short = {flag: mode for mode, flag in POOLING_FLAGS.items()}
    asked = values.get("pooling_mode") or [short.get(name, name) for name in flags] or ["mean"]
    modes = asked if isinstance(asked, list) else [asked]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in POOLINGS:
        shown = " + ".join(map(str, modes))
        raise UserError(f"{file} asks for the pooling {shown:.200}: minibert knows only {', '.join(POOLINGS)}")
    return modes[0], POOLING.check(file, values)
