"""Proves that the benchmarks run: every case, at a tiny size, on toy text, as a user starts them."""

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import ablation, compare, gpu, graphs, half_modern, mistakes, notebook, plateau, ranks
from benchmarks.graphs import GraphedStep, mask_batches, most_masked
from minibert import fast
from minibert.bert import Bert
from minibert.cli import parse_options
from minibert.config import IGNORED, ModelConfig, ModernBertConfig
from minibert.data.batching import tokenise
from minibert.data.pairs import Pairs
from minibert.data.sources import toy_articles
from minibert.device import has_bfloat16
from minibert.errors import UserError
from minibert.hub import save_classifier, save_mlm
from minibert.modern import ModernBert, make_masked_lm
from minibert.optimizer import adamw
from minibert.options import MLMOptions, NLIOptions
from minibert.pretraining import MLMTask
from minibert.run import Run
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.textbook import is_textbook
from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from minibert.training import Trainer
from tests.conftest import TEXTS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
Says = Callable[..., str]
Few = dict[str, Path]


class InThreads:
    """Stands in for `multiprocessing`'s contexts: the sides' libraries are loaded once, not by each anew."""

    Process = threading.Thread

    @staticmethod
    def Pipe() -> tuple[Any, Any]:  # noqa: N802 - as it is called there
        mine, its = multiprocessing.Pipe()
        return mine, SimpleNamespace(send=its.send, recv=its.recv, close=lambda: None)  # the other end is not a copy


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Says:
    """What a command prints that need not be started as a program once more: its `main`, and flags."""

    def said(main: Callable[[], None], flags: str = "", **others: object) -> str:
        more = [word for name, value in others.items() for word in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", ["it.py", *flags.split(), *more])
        main()
        return capsys.readouterr().out

    return said


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Few:
    """A thousand toy articles, cut short, of which train_mlm.py holds out the half; and their vocabulary."""
    folder, texts = tmp_path_factory.mktemp("few"), [article["text"][:220] for article in toy_articles()[:1_000]]
    (folder / "articles.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    words = sorted(set(re.findall(r"\w+|[.,]", " ".join(texts).lower())))
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *words]))
    return {"data": folder / "articles.jsonl", "vocab": folder / "vocab.txt"}


def test_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Says) -> None:
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: InThreads)
    cache = datasets.config.HF_DATASETS_CACHE
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)  # the notebook's side moves it
    monkeypatch.setattr(compare, "quiet_notebook", lambda: notebook)
    tiny = "--rounds 2 --articles 40 --sentences 8 --starts 1 --profile --only encode tokenise start"
    said = says(compare.main, tiny, json=tmp_path / "x.json")
    report = json.loads((tmp_path / "x.json").read_text())
    for name in ("encode", "tokenise"):
        figures = report[name]
        compared = {"ours"} if name == "tokenise" or not has_bfloat16(torch.device("cpu")) else {"ours", "bfloat16"}
        assert figures["rates"].keys() == figures["peak_megabytes"].keys() == {"theirs", *compared}
        assert figures["ratios"].keys() == compared
        for ratio in figures["ratios"].values():
            assert len(ratio["rounds"]) == 2
            assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
        assert min(figures["rates"].values()) > 0
        assert f"{name:<10} " in said
    assert "aten::addmm" in said
    assert report["encode"]["gigaflop_per_unit"] > 0
    assert report["gemm_gflops"] > 0
    assert 0 < report["start"]["help"] < min(report["start"]["step"], report["start"]["again"])
    assert {"torch", "transformers", "processor"} <= report["machine"].keys()


def test_each_side_of_a_comparison_has_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py", "--articles", "40"])
    worker = compare.Worker("tokenise", "ours", compare.read_arguments(), tmp_path / "ours")
    assert worker.process.pid not in (None, os.getpid())
    assert worker.ask("run") > 0
    assert worker.ask("memory") >= 0
    worker.end()
    assert worker.process.exitcode == 0


@pytest.mark.parametrize(("name", "units"), [("mlm", 2), ("nli", 16)])
def test_the_sides_of_a_training(
    name: str, units: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: Few
) -> None:
    """In one process, a run of each; fine-tuning has an encoder of any vocabulary, here of a small one."""
    vocab = ["--vocab", str(few["vocab"])] if name == "nli" else []
    monkeypatch.setattr(sys, "argv", ["compare.py", "--rounds", "1", "--steps", "1", "--batch-size", "2", *vocab])
    monkeypatch.setattr(compare, "quiet_notebook", lambda: notebook)
    sides = compare.CASES[name].sides
    assert list(sides) == ["theirs", "ours", "textbook", *["bfloat16"] * has_bfloat16(torch.device("cpu"))]
    for side, prepare in sides.items():
        assert prepare(compare.read_arguments(), tmp_path / side).run() == units


def test_memory(tmp_path: Path) -> None:
    text = "The cat number {} sat on the mat and looked at the log for a long while. "
    rows = [json.dumps({"text": text.format(number) * 5}) for number in range(30)]
    (tmp_path / "articles.jsonl").write_text("\n".join(rows))
    words = ["the", "cat", "number", "sat", "on", "mat", "and", "looked", "at", "log", "for", "a", "long", "while", "."]
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *words, *"0123456789"]))
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--data", str(tmp_path / "articles.jsonl"),
         "--vocab", str(tmp_path / "vocab.txt"), "--copies", "2", "--steps", "1", "--held-out", "5",
         "--json", str(tmp_path / "x.json")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    built, reused = json.loads((tmp_path / "x.json").read_text())
    assert (built["store"], reused["store"]) == ("built", "reused")
    for run in (built, reused):
        assert run["articles"] == 50  # the other copies of the five that are held out are not trained on
        assert run["tokens"] > 50 * 50
        assert run["peak_mb"] > 100
        assert run["seconds"] > 0


def test_the_ladder_of_pretraining_ends_at_the_strong_recipe() -> None:
    """Row by row from the notebook's, each with a change of its own."""
    kept = [number for number, row in enumerate(ablation.MLM) if row.kept]
    rungs = [parse_options(MLMOptions, ablation.flags(ablation.MLM, number), "") for number in range(len(ablation.MLM))]
    assert rungs[0] == MLMOptions()
    assert rungs[kept[-1]] == replace(MLMOptions.of("strong"), recipe="notebook")
    assert len({(str(rung), row.network) for rung, row in zip(rungs, ablation.MLM, strict=True)}) == len(ablation.MLM)
    assert {row.network for row in ablation.MLM} <= {"", *half_modern.NETWORKS}
    assert not ablation.MLM[kept[-1]].network


def test_each_row_of_fine_tuning_is_the_strong_recipe_without_one_part() -> None:
    first, *others = (
        parse_options(NLIOptions, ablation.flags(ablation.NLI, number), "") for number in range(len(ablation.NLI))
    )
    assert first == NLIOptions.of("strong")
    changed = [{name for name, value in vars(other).items() if value != getattr(first, name)} for other in others]
    assert changed == [{"contrast"}, {"pooling"}, {"mixup"}, {"weight_decay"}, {"hypothesis_only"}]


@pytest.mark.parametrize("network", half_modern.NETWORKS)
def test_a_network_between_bert_and_modernbert(network: str, tokenizer: WordPieceTokenizer, tmp_path: Path) -> None:
    """Its parts, value for value; fast.py knows it; and it is never saved as something else."""
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    kind = ModernBertConfig if network == "no-biases" else ModelConfig
    model = half_modern.make_network(network, kind(61, **shape)).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    ids, mask = torch.randint(1, 61, (2, 7)), torch.arange(7) < torch.tensor([[7], [4]])
    bert = model.bert
    if network == "no-biases":
        assert [name for name, _ in model.named_parameters() if name.endswith("bias")] == ["head.bias"]
    else:
        assert isinstance(bert, ModernBert)
        table, segments = bert.embeddings.position_embeddings.weight, bert.embeddings.token_type_embeddings.weight
        hidden = bert.embeddings.word_embeddings(ids) + table[:7] + (segments[0] if network == "pre-norm" else 0)
        hidden = bert.embeddings.norm(hidden)
        layers: list[Any] = list(bert.layers)
        for number, layer in enumerate(layers):
            attention, feed_forward = layer.attention, layer.feed_forward
            normed = layer.attention_norm(hidden) if number else hidden  # the embeddings are normalised
            value = attention.value(normed).view(2, 7, 3, 8).transpose(1, 2)  # (B, H, T, K)
            query, key = (part(normed).view(2, 7, 3, 8).transpose(1, 2) for part in (attention.query, attention.key))
            scores = (query @ key.mT / 8**0.5).masked_fill(~mask[:, None, None], -torch.inf)
            hidden = hidden + attention.output((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
            inner = feed_forward.intermediate(layer.feed_forward_norm(hidden))
            gate = inner[..., 40:] if network == "gated" else 1
            hidden = hidden + feed_forward.output(torch.nn.functional.gelu(inner[..., :40]) * gate)
        torch.testing.assert_close(bert(ids, mask)[mask], bert.final_norm(hidden)[mask], rtol=1e-4, atol=1e-5)
        with pytest.raises((UserError, KeyError)):
            save_mlm(tmp_path / "half", model, tokenizer)
        assert not (tmp_path / "half").exists()
    torch.testing.assert_close(fast.encode(bert, ids, mask)[mask], bert(ids, mask)[mask])
    assert is_textbook(bert)  # so that its seconds a step can be compared with other rows'


def test_ablation_of_half_a_modernbert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Says, few: Few) -> None:
    command = partial(says, ablation.main, "mlm --rows 4 --steps 2 --threads 1", output=tmp_path, **few)
    monkeypatch.chdir(tmp_path)
    said = command()
    assert said.splitlines()[2].startswith("| gated feed-forward layers, no segments | ")
    folder = tmp_path / "mlm-4-2-42"
    start, *_, end = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert (start["network"], end["kind"], end["step"]) == ("gated", "end", 2)
    assert not [*folder.glob("*.safetensors"), *folder.glob("config.json")]
    monkeypatch.setattr(subprocess, "Popen", pytest.fail)  # nothing is run a second time
    assert command() == said


def test_ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Says, few: Few) -> None:
    command = "mlm --rows 9 --steps 2 --snapshots 1 --threads 1 --seeds 1"
    monkeypatch.chdir(tmp_path)
    says(ablation.main, command, output=tmp_path, **few)
    folders = [tmp_path / f"mlm-9-2-{seed}" for seed in (1, 2)]
    options = json.loads((folders[0] / "options.json").read_text())
    assert (options["seed"], options["max_steps"], options["neighbour_heads"]) == (1, 2, True)
    assert (folders[0] / "step-00000001.safetensors").exists()
    # As if another seed had been run, too: of both there is the mean, and nothing is run a second time.
    shutil.copytree(folders[0], folders[1])
    loss = json.loads((folders[0] / "row.json").read_text())["held_out_loss"]
    said, own = (folders[0] / "metrics.jsonl").read_text(), f'"held_out_loss": {loss}'
    assert own in said
    (folders[1] / "metrics.jsonl").write_text(said.replace(own, f'"held_out_loss": {loss + 0.5}'))
    monkeypatch.setattr(subprocess, "Popen", pytest.fail)
    row, drawn = says(ablation.main, f"{command} 2", output=tmp_path, **few).splitlines()[-2:]
    assert row.startswith(f"| heads pointed at neighbours | {loss + 0.25:.4f} ({loss:.4f} to {loss + 0.5:.4f}")
    assert drawn == f"drawn       {tmp_path / 'mlm.png'}"

    picture = tmp_path / "plateau.png"
    looks = {"runs": folders[0], "text": "the king of the island", "output": picture}
    lines = says(plateau.main, "--names rotary --steps 1", **looks).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:4]] == ["1", "the last"]
    assert picture.exists()


def test_the_head_that_looks_most_at_neighbours() -> None:
    """Two layers of one head over five tokens: the first looks everywhere alike, the second at the token before."""
    maps = np.full((2, 1, 5, 5), 0.2, dtype=np.float32)
    maps[1, 0] = np.eye(5, k=-1)
    maps[1, 0, 0, 0] = 1

    class Model:
        def attention(self, text: str) -> tuple[list[str], np.ndarray]:
            return text.split(), maps

    look = plateau.look_of(Model(), "[CLS] a b c [SEP]")  # type: ignore[arg-type]
    assert (look.layer, look.head, look.neighbours) == (1, 0, 1)
    maps[1] = 0.2
    looks = [[0.5, 0, 0, 0, 0.5], [1.0, 0, 0, 0, 0], [0, 0, 1.0, 0, 0]]  # half, all and all of it at neighbours
    maps[0, 0, 1:4] = np.array(looks)
    assert plateau.look_of(Model(), "[CLS] a b c [SEP]").neighbours == pytest.approx(2.5 / 3)  # type: ignore[arg-type]


def test_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Says) -> None:
    """All of it but what starts further programs, on a CPU, tiny."""
    sections = "machine steps profile graphs batches encode"
    monkeypatch.chdir(tmp_path)
    said = says(gpu.main, f"--device cpu --tiny --rounds 1 --only {sections}", json=tmp_path / "x.json")
    report = json.loads((tmp_path / "x.json").read_text())
    assert set(report) == {*sections.split(), "seconds"}
    assert "error" not in json.dumps(report), said
    for row in [*report["steps"].values(), *report["batches"].values()]:
        assert 0 < row["least"] <= row["ms"] <= row["greatest"]
        assert row["tokens_per_second"] > 0
    assert 0.2 < report["graphs"]["strong fine-tuning"]["test_accuracy"] < 1
    assert report["encode"]["minibert float32, 32"]["least_cosine"] > 1 - 1e-5
    assert "aten::" in (tmp_path / "x.profile.txt").read_text()


def test_gpu_trains_on_the_beginnings_of_articles(tmp_path: Path) -> None:
    """What the tokenizer gives of each at that length; and the same from the ids that an earlier run has written."""
    options = Namespace(tiny=True, wikipedia="toy", snli="toy", vocab="train", ids=str(tmp_path / "ids.npz"))
    world = gpu.World(options, tmp_path / "first", torch.device("cpu"))
    with world.articles("toy", max_articles=300, held_out=20, min_characters=200) as found:
        texts = {"train": found.texts.train["text"], "held_out": found.texts.held_out["text"]}
    expected = world.tokenizer.encode(texts["train"], world.length)
    again = gpu.World(Namespace(**{**vars(options), "wikipedia": "nowhere"}), tmp_path / "again", torch.device("cpu"))
    for each in (world, again):
        assert [ids.tolist() for ids in each.beginnings] == expected
        for part, whole in texts.items():
            assert [ids.tolist() for ids in each.ids[f"articles_{part}"]] == world.tokenizer.encode(whole, None)
        assert len(each.ids["captions_held_out"]) == 20


def test_gpu_goes_on_after_a_section_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Says) -> None:
    """Its error stands in the report, what comes after it is run, and what there is no time for is named."""

    def broken(world: gpu.World, report: gpu.Report) -> None:
        report.put("broken", "before", 1.5)
        raise ZeroDivisionError("no such kernel")

    def late(world: gpu.World, report: gpu.Report) -> None:
        raise AssertionError

    sections = {"broken": (broken, 1.0), "machine": (gpu.machine, 1.0), "late": (late, 60_000.0)}
    monkeypatch.setattr(gpu, "SECTIONS", sections)
    says(gpu.main, "--device cpu --tiny --minutes 10", json=tmp_path / "x.json")
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["broken"] == {"before": 1.5, "error": "ZeroDivisionError: no such kernel"}
    assert report["machine"]["memory TB/s"] > 0
    assert "1000 needed" in report["late"]["skipped"]


def test_a_graphed_step_is_the_step_of_the_loop(config: ModelConfig, tokenizer: WordPieceTokenizer) -> None:
    """Its function, without a graph: losses and weights after four steps, masked places filled up."""
    changes: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = MLMOptions(batch_size=4, max_length=19, decayed="matrices", clip=0.5, learning_rate=0.05)
    store = tokenise(TEXTS, tokenizer, options.max_length)
    network = make_masked_lm(replace(config, **changes))
    own = deepcopy(network)
    task = MLMTask(network, store, store, tokenizer, options)
    trainer = Trainer(task, Run(options))
    trainer.schedule = lambda step: 0.5**step
    graphed = GraphedStep(own, gpu.mlm_loss(own), adamw(own, options).param_groups, options.beta2, options.clip)
    for number, batch in enumerate(task.batches(0, 0)):
        trainer.step(batch)
        trainer.state.step += 1
        missing = 64 - batch.count
        assert batch.positions is not None
        places, labels = F.pad(batch.positions, (0, missing)), F.pad(batch.labels, (0, missing), value=IGNORED)
        loss = graphed(options.learning_rate * 0.5**number, batch.input_ids, places, labels, batch.attention_mask)
        torch.testing.assert_close(loss, trainer.metrics.losses[-1] / batch.count)
    for theirs, ours in zip(network.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    graphed.reset(dict(deepcopy(network).named_parameters()))
    assert all(not tensor.any() for tensor in graphed.optimizer_state())


def test_ranks(monkeypatch: pytest.MonkeyPatch, says: Says) -> None:
    """Rates of both ways on toy text, as the runs themselves have recorded them."""
    monkeypatch.setattr(ranks, "EVERY", 1)
    lines = says(ranks.main, "--rounds 1 --steps 2").splitlines()
    one, two, ratio = (float(line.split(": ")[1].split()[0].replace(",", "")) for line in lines)
    assert ratio == pytest.approx(two / one, rel=0.02)


def test_masked_batches_are_those_of_the_rule() -> None:
    """Rates, labels and places of 200,000 tokens; [CLS], [SEP] and padding are never chosen, nor drawn."""
    special = torch.zeros(61, dtype=torch.bool)
    special[:5] = True
    input_ids = torch.randint(5, 61, (50, 32, 125), generator=torch.Generator().manual_seed(1))
    input_ids[:, :, 0], input_ids[:, :, -25:] = 2, 0
    masked = mask_batches(input_ids, input_ids != 0, special, 4, 0.3, torch.Generator().manual_seed(2))
    M = masked.positions.shape[1]
    assert most_masked(32 * 125, 0.3) == M == 1_408  # 1,200, and five times 29, by the 64
    assert masked.dropped == 0
    flat, hidden = input_ids.view(50, -1), masked.input_ids.view(50, -1)
    asked = masked.labels != IGNORED
    assert torch.equal(flat.gather(1, masked.positions)[asked], masked.labels[asked])
    assert not masked.positions[~asked].any()
    places = torch.zeros_like(flat, dtype=torch.bool)
    rows = torch.arange(50).unsqueeze(1).expand(-1, M)
    places[rows[asked], masked.positions[asked]] = True
    assert torch.equal(flat[~places], hidden[~places])
    assert not special[flat[places]].any()
    count, possible = int(places.sum()), int((~special[flat]).sum())
    assert count == int(asked.sum())
    assert count / possible == pytest.approx(0.3, abs=0.005)
    assert (hidden[places] == 4).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (hidden[places] == flat[places]).float().mean().item() == pytest.approx(0.1 + 0.1 / 56, abs=0.01)
    assert not special[hidden[places & (hidden != 4)]].any()


def test_masked_tokens_that_find_no_place_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    special = torch.zeros(9, dtype=torch.bool)
    input_ids = torch.ones(3, 10, 100, dtype=torch.int64)
    assert len(mask_batches(input_ids, None, special, 0, 0.01, torch.Generator()).batch(0)) == 3  # there is no mask
    monkeypatch.setattr(graphs, "most_masked", lambda tokens, rate: 64)
    many = mask_batches(input_ids, None, special, 0, 0.5, torch.Generator().manual_seed(0))
    assert (many.labels == 1).all()
    assert many.dropped == pytest.approx(3 * (500 - 64), abs=100)


def test_pairs_are_parted_by_their_words() -> None:
    premises = ["A man isn't outside .", "Two dogs run .", "The girl sings ."]
    hypotheses = ["A man is not inside .", "2 dogs run fast", "A guitar ."]
    inside = mistakes.groups(Pairs(premises, hypotheses, np.array([0, 1, 2])))
    assert inside["all pairs"].tolist() == [True] * 3
    assert inside["a negation in the hypothesis"].tolist() == [True, False, False]
    assert inside["a number in the hypothesis"].tolist() == [False, True, False]
    assert inside["no word of the hypothesis in the premise"].tolist() == [False, False, True]
    assert mistakes.words("He isn't here, can't he? 3 CATS") == [
        "he",
        "is",
        "n't",
        "here",
        "ca",
        "n't",
        "he",
        "3",
        "cats",
    ]


@pytest.mark.parametrize(
    ("premise", "hypothesis", "expected"),
    [
        ("A Man sleeps .", "the man rests .", ("A woman sleeps .", "the woman rests .")),
        ("A man and a woman .", "a man", None),  # the exchanged word is there already, so it might still be entailed
        ("A mannequin .", "a man", None),
        ("A boy plays a guitar .", "Music by guitar", ("A boy plays a piano .", "Music by piano")),
        ("A boy .", "Nobody .", None),
    ],
)
def test_a_shared_word_is_exchanged_for_its_opposite(
    premise: str, hypothesis: str, expected: tuple[str, str] | None
) -> None:
    assert mistakes.exchanged(premise, hypothesis) == expected


def test_mistakes_counts_what_each_model_answers(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, says: Says
) -> None:
    """A model whose last layer knows one answer: right where that is the label, and never moved by a word."""
    model = NLIClassifier(SentenceEncoder(Bert(config)))
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    save_classifier(tmp_path / "nli", model, tokenizer, 10, hypothesis_only=False)
    rows = [("the dog", "a dog", 0), ("the dog", "the dog sees no cat", 0), ("a mat", "a cat", 2), ("x", "y not", 1)]
    (tmp_path / "test.csv").write_text("premise,hypothesis,label\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    model_folder = tmp_path / "nli"
    lines = says(mistakes.main, data=tmp_path / "test.csv", models=model_folder, control=model_folder).splitlines()
    assert "| all pairs | 4 | 0.500 | 0.500 |" in lines
    assert "| a negation in the hypothesis | 2 | 0.500 | 0.500 |" in lines
    assert "| the control is wrong | 2 | 0.000 | 0.000 |" in lines
    # Of the second pair, "dog" exchanged would be "cat", which is there.
    assert "| in the premise | 1 | 0.000 |" in lines
