"""How a folder turns a sentence into one vector: what sentence-transformers writes beside an encoder.

    modules.json                         the steps from a text to its vector, in their order
    sentence_bert_config.json            settings of the first step, the encoder, in its folder
    1_Pooling/config.json, 1_Dense/, 2_Normalize/config.json    settings of the others
    config_sentence_transformers.json    settings of the whole

Without modules.json, the vector is the mean of the tokens' vectors, and the other files mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibert.config import MOST_WIDTH
from minibert.errors import UserError
from minibert.files import is_file, read_json
from minibert.hub.added_tokens import TOKENIZER_CONFIG
from minibert.hub.settings import CONFIG, Table, Values, check_inside
from minibert.hub.tokenization import TOKENIZER_CONFIG_TABLE
from minibert.sbert import POOLINGS

MODULES, SENTENCE_TRANSFORMERS = "modules.json", "config_sentence_transformers.json"

# The settings of the encoder, which older folders name after its architecture. The first file with any is read.
ENCODER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

# The steps in the one order that minibert knows, by the last names of their types. The encoder's was first named
# after its architecture.
STEPS = {"Transformer": "Transformer", "BERT": "Transformer", "Dense": "Dense", "Pooling": "Pooling",
         "Normalize": "Normalize"}  # fmt: skip

# Their whole names in all versions of sentence-transformers; others may do anything under the same last name.
TYPES = {
    f"sentence_transformers.{package}.{file}{name}": step
    for package in ("models", "base.modules", "sentence_transformer.modules")
    for name, step in STEPS.items()
    for file in ("", f"{name}.", f"{name.lower()}.")
}

# What all versions of sentence-transformers call a pooling.
POOLING_FLAGS = {mode: f"pooling_mode_{mode}_token{'' if mode == 'cls' else 's'}" for mode in POOLINGS}

# The one Dense that minibert has: a projection of each token's vector, before pooling.
DENSE = {"bias": True, "activation_function": "torch.nn.modules.linear.Identity",
         "module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}  # fmt: skip
DENSE_DEFAULTS = {"activation_function": "torch.nn.modules.activation.Tanh", "module_input_name": "sentence_embedding"}

MODULE_TABLE = Table(used="type path name", only={"kwargs": ([], {}, None)}, harmless="idx", strict=True)
SENTENCE_TRANSFORMERS_TABLE = Table(
    used="prompts default_prompt_name",
    only={"truncate_dim": (None,), "model_type": ("SentenceTransformer",)},
    harmless="__version__ requirements similarity_fn_name",
)
ENCODER_TABLE = Table(
    used="max_seq_length do_lower_case",
    only={
        "transformer_task": ("feature-extraction",),
        "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
        "module_output_name": ("token_embeddings",), "query_expansion": (None,), "tokenizer_name_or_path": (None,),
        **dict.fromkeys(
            ("processing_kwargs", "model_args", "model_kwargs", "config_args", "config_kwargs", "tokenizer_args",
             "processor_kwargs"), ({}, None),
        ),
    },
    harmless="unpad_inputs query_length document_length",
)  # fmt: skip
POOLING_TABLE = Table(
    used=" ".join(["pooling_mode", *POOLING_FLAGS.values()])
    + " pooling_mode_mean_sqrt_len_tokens pooling_mode_weightedmean_tokens pooling_mode_lasttoken",
    only={"include_prompt": (True,)},
    harmless="word_embedding_dimension embedding_dimension",
)
DENSE_TABLE = Table(
    used="in_features out_features",
    only={name: (fine,) for name, fine in (DENSE | {"use_residual": False}).items()},
    strict=True,
)
NORMALIZE_TABLE = Table(
    used="", only={"module_input_name": ("sentence_embedding",), "module_output_name": ("sentence_embedding", None)}
)


@dataclass(frozen=True)
class SentenceSettings:
    """What these files say."""

    max_length: int  # tokens kept of each sentence
    pooling: str = "mean"  # one of `POOLINGS`
    normalize: bool = False  # whether vectors are scaled to length 1
    dense: str = ""  # the subfolder with the projection of token vectors; "" = there is none
    width: int = 0  # how many numbers a projected vector has; 0 = there is none
    lowercase: bool = False  # whether texts are asked to be lower-cased first
    ignored: tuple[str, ...] = ()  # names in the files that mean nothing to minibert


def encoder_folder(folder: Path) -> Path:
    """Where the encoder's own files are: in the folder, or in that of the first module (`0_BERT`, `0_Transformer`)."""
    return folder / _modules(folder)["Transformer"] if is_file(folder / MODULES) else folder


def modules_after(folder: Path) -> list[str]:
    """What a folder does with the encoder's vectors, by sentence-transformers' names, in order."""
    return [kind for kind in _modules(folder) if kind != "Transformer"] if is_file(folder / MODULES) else []


def read_sentence_settings(folder: Path, positions: int, hidden_size: int) -> SentenceSettings:
    """What modules.json and its neighbours say, for an encoder with so many positions and hidden size D."""
    encoder = encoder_folder(folder)
    tokenizer, unknown = TOKENIZER_CONFIG_TABLE.read(encoder / TOKENIZER_CONFIG)
    ignored = [name for name in unknown if not name.endswith("_token")]  # those are added tokens
    length = tokenizer.get("model_max_length", tokenizer.get("max_len"))  # the latter in older folders
    if not is_file(folder / MODULES):
        return SentenceSettings(_length(folder, length, positions), ignored=tuple(ignored))
    modules = _modules(folder)
    ignored += _check_prompts(folder / SENTENCE_TRANSFORMERS)
    read = (ENCODER_TABLE.read(encoder / name) for name in ENCODER_FILES)
    settings, unknown = next(((values, names) for values, names in read if values), ({}, []))
    if settings.get("max_seq_length") is not None:
        length = settings["max_seq_length"]
    pooling, unused = _pooling(folder / modules["Pooling"] / CONFIG)
    ignored += unknown + unused
    if "Normalize" in modules:
        ignored += NORMALIZE_TABLE.read(folder / modules["Normalize"] / CONFIG)[1]
    dense = modules.get("Dense", "")
    width = _width(folder / dense / CONFIG, hidden_size) if dense else 0
    return SentenceSettings(
        _length(encoder, length, positions), pooling, "Normalize" in modules, dense, width,
        lowercase=bool(settings.get("do_lower_case")), ignored=tuple(ignored),
    )  # fmt: skip


def _modules(folder: Path) -> dict[str, str]:
    """The steps from a text to its vector, and the subfolder of each."""
    file = folder / MODULES
    modules = read_json(file, "", list)
    for module in modules:
        if not isinstance(module, dict) or not {"type", "path"} <= module.keys():
            raise UserError(f"{file} is not a list of modules with type and path")
        MODULE_TABLE.check(file, module)
        check_inside(file, module["path"])
        if not isinstance(module["type"], str) or module["type"] not in TYPES:
            raise UserError(f"{file} asks for the module {module['type']!r:.60}: minibert knows only"
                            f" sentence_transformers' own {', '.join(STEPS)}")  # fmt: skip
    steps = [(TYPES[module["type"]], module["path"]) for module in modules]
    kinds = [kind for kind, _ in steps]
    known = [kind for kind in dict.fromkeys(STEPS.values()) if kind in (*kinds, "Transformer", "Pooling")]
    if kinds != known or not all(path for _, path in steps[1:]):
        asked = " + ".join(path or kind for kind, path in steps)
        raise UserError(
            f"{file} asks for {asked:.200}: minibert knows only a Transformer, a Dense of token vectors, Pooling, and"
            " Normalize, the last three in subfolders"
        )
    names = [module.get("name", place) for place, module in enumerate(modules)]
    if any(names.count(name) > 1 for name in names):
        raise UserError(f"{file} has two modules of one name: other programs use only the last")
    return dict(steps)


def _check_prompts(file: Path) -> list[str]:
    """Refuse a prompt before every text; returns the names that mean nothing."""
    values, unknown = SENTENCE_TRANSFORMERS_TABLE.read(file)
    name, prompts = values.get("default_prompt_name"), values.get("prompts") or {}
    texts = {"query": "", "document": "", **prompts} if isinstance(prompts, dict) else {}
    if name is not None and (not isinstance(name, str) or texts.get(name, "unknown")):
        raise UserError(f"{file} asks for default_prompt_name {name!r:.60}: minibert puts no prompt before a text")
    return unknown


def _length(folder: Path, asked: Any, positions: int) -> int:
    if asked is None:
        return positions
    if type(asked) not in (int, float) or not asked >= 3 or (asked < positions and asked != int(asked)):
        raise UserError(f"{folder} asks for sentences of {asked!r:.60} tokens: [CLS], one token and [SEP] need 3")
    return int(min(asked, positions))


def _pooling(file: Path) -> tuple[str, list[str]]:
    """One of `POOLINGS`, from today's `pooling_mode` or the yes and no of older files; and the names not used."""
    values = read_json(file, f"{MODULES} asks for it")
    short = {flag: mode for mode, flag in POOLING_FLAGS.items()}
    flags = [short.get(name, name) for name, chosen in values.items() if name.startswith("pooling_mode_") and chosen]
    asked = values.get("pooling_mode") or flags or ["mean"]
    modes = [str(mode) for mode in (asked if isinstance(asked, list) else [asked])]
    if len(modes) != 1 or any(mode not in POOLINGS for mode in (*modes, *flags)):
        shown = " + ".join(dict.fromkeys((*modes, *flags)))
        raise UserError(f"{file} asks for the pooling {shown:.200}: minibert knows only one of {', '.join(POOLINGS)}")
    return modes[0], POOLING_TABLE.check(file, values)


def _width(file: Path, hidden_size: int) -> int:
    """The size of a projected vector."""
    values: Values = DENSE_DEFAULTS | read_json(file, f"{MODULES} asks for it")
    DENSE_TABLE.check(file, values)
    width = values.get("out_features")
    if type(width) is not int or not 1 <= width <= MOST_WIDTH:
        raise UserError(f"{file} has the out_features {width!r:.60}, not a number from 1 to {MOST_WIDTH:,}")
    if values.get("in_features", hidden_size) != hidden_size:
        raise UserError(f"{file} has the in_features {values['in_features']!r:.60}: the encoder gives {hidden_size}")
    return width
