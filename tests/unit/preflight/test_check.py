from pathlib import Path

from seq2seq.data.corpus import CorpusConfig, DataConfig, read_examples
from seq2seq.preflight.check import subsample


def test_a_subsampled_corpus_has_every_nth_pair(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("".join(f"line {i}\n" for i in range(10)))
    (tmp_path / "a.de").write_text("".join(f"Zeile\u2028{i}\n" for i in range(10)), encoding="utf-8")
    data = DataConfig(root=str(tmp_path), train=CorpusConfig(source="a.en", target="a.de"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    some = subsample(data, scratch, every=4)
    assert [(e.source, e.target) for e in read_examples(some.train, tmp_path, "data.train")] == [
        (f"line {i}", f"Zeile\u2028{i}") for i in (0, 4, 8)
    ]
    assert some.valid == data.valid
