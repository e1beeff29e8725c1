from sacrebleu.metrics import BLEU

from seq2seq.metrics import Signature


def test_a_signature_is_spelt_as_it_was_parsed() -> None:
    for text in ("nrefs:1|type:a", "exp of loss", "% of target tokens|teacher-forced|eos:counted", "a:b:c|"):
        assert str(Signature.parse(text)) == text
    assert Signature.of(nrefs=1, type="a") == Signature.parse("nrefs:1|type:a")


def test_resampling_stands_where_sacrebleu_has_it() -> None:
    metric = BLEU()
    metric.corpus_score(["a b c d"] * 3, [["a b c d"] * 3], n_bootstrap=5)
    resampled = str(metric.get_signature())
    metric = BLEU()
    metric.corpus_score(["a b c d"] * 3, [["a b c d"] * 3])
    seed = resampled.split("seed:")[1].split("|")[0]
    assert str(Signature.parse(str(metric.get_signature())).with_resampling(bs=5, seed=seed)) == resampled


def test_settings_are_left_out_by_name() -> None:
    signature = Signature.parse("nrefs:1|bs:5|seed:1|bst:2").append(text="lead")
    assert str(signature.without("bs", "seed")) == "nrefs:1|bst:2|text:lead"
