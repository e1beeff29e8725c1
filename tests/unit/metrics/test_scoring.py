import dataclasses
import logging
from importlib.metadata import version

import numpy as np
import pytest
import sacrebleu

from seq2seq import __version__
from seq2seq.errors import UserError
from seq2seq.metrics import (
    METRICS,
    MetricsConfig,
    RougeSplit,
    Score,
    Signature,
    bleu,
    rouge,
    score,
    score_baselines,
    score_summaries,
    statistics,
)

HYPS = ["the cat sat on the mat", "a dog barks", "completely different words here"]
REFS = [["the cat sat on a mat"], ["a dog barks loudly", "the dog barks"], ["nothing matches at all"]]


def compute(hyps, refs, *, language=None, seed=7, **settings):
    return score(hyps, refs, MetricsConfig(**settings), target_language=language, seed=seed)


def test_all_metrics_in_order_with_signatures():
    scores = compute(HYPS, REFS, bootstrap=50)
    rouge = [key for name in ("rouge1", "rouge2", "rougeL", "rougeLsum") for key in (name, f"{name}_mean")]
    assert list(scores) == ["bleu", "bleu_lc", "chrf", "ter", *rouge]
    assert str(scores["bleu"].signature).startswith("nrefs:var|bs:50|seed:7|case:mixed|eff:no|tok:13a")
    assert "case:lc" in str(scores["bleu_lc"].signature)
    assert "nc:6|nw:2" in str(scores["chrf"].signature)
    assert str(scores["rougeLsum"].signature) == (
        "nrefs:var|bs:50|seed:7|type:rougeLsum|measure:f1|refs:best|tok:default|stem:yes|split:newline"
        "|pkg:rouge-score|version:0.1.2"
    )
    assert "refs:mean" in str(scores["rougeLsum_mean"].signature)


def test_statistics_hold_all_that_a_score_needs():
    by_name = statistics(HYPS, REFS, MetricsConfig(), target_language=None)
    for name, value in compute(HYPS, REFS, bootstrap=0).items():
        assert by_name[name].rows.shape[0] == len(HYPS)
        assert by_name[name].rows.dtype == np.float64
        assert by_name[name].score(by_name[name].rows.sum(axis=0)) == value.score
        assert by_name[name].signature == value.signature
    one = compute(HYPS[1:2], REFS[1:2], bootstrap=0)
    for name, value in one.items():
        assert by_name[name].score(by_name[name].rows[1]) == pytest.approx(value.score), name


def test_identical_texts_are_perfect_and_order_of_examples_is_irrelevant():
    texts = ["one two three four five", "six seven eight nine ten"]
    for name, value in compute(texts, [[t] for t in texts], bootstrap=0).items():
        assert value.score == pytest.approx(0.0 if name == "ter" else 100.0), name
    forward = compute(HYPS, REFS, bootstrap=0)
    backward = compute(HYPS[::-1], REFS[::-1], bootstrap=0)
    for name in METRICS:
        assert forward[name].score == pytest.approx(backward[name].score)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("zh", "今天天气很好我们去公园玩"),
        ("ar", "ذهب الولد إلى المدرسة في الصباح"),
        ("hi", "मैं आज बाज़ार जा रहा हूँ भाई"),
        ("ru", "Сегодня очень хорошая погода в городе"),
        ("th", "วันนี้อากาศดีมากเราไปเดินเล่น"),
    ],
)
def test_text_outside_the_latin_script_scores_100_against_itself(language, text):
    scores = compute([text] * 2, [[text]] * 2, language=language, bootstrap=0)
    for name in METRICS:
        if name == "bleu_lc" and language in ("zh", "th"):
            continue  # 13a sees one word of it
        assert scores[name].score == pytest.approx(0.0 if name == "ter" else 100.0), name
    assert "tok:unicode|stem:no" in str(scores["rouge1"].signature)


def test_a_few_foreign_letters_do_not_change_the_rouge_tokenizer():
    texts = ["plain english text with many letters and one name 王 in it"]
    assert "tok:default" in str(compute(texts, [texts], bootstrap=0)["rouge1"].signature)


@pytest.mark.parametrize(
    ("language", "stem"), [(None, "yes"), ("en", "yes"), ("eng_Latn", "yes"), ("en-GB", "yes"), ("de", "no")]
)
def test_stemming_is_for_english(language, stem):
    signature = str(compute(HYPS, REFS, language=language, bootstrap=0)["rouge1"].signature)
    assert f"stem:{stem}" in signature
    assert "stem:no" in str(compute(HYPS, REFS, bootstrap=0, rouge_stemmer=False)["rouge1"].signature)


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [(None, "13a"), ("de", "13a"), ("zh", "zh"), ("zh_CN", "zh"), ("zho_Hans", "zh"), ("th", "char")],
)
def test_bleu_tokenizer_by_language(language, tokenizer):
    signature = str(compute(HYPS, REFS, language=language, names=["bleu"], bootstrap=0)["bleu"].signature)
    assert f"tok:{tokenizer}|" in signature


def test_missing_analyser_warns_once_and_counts_characters(monkeypatch, caplog):
    monkeypatch.setattr(bleu.importlib.util, "find_spec", lambda name: None)
    bleu.warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            result = compute(["日本語です"], [["日本語です"]], language="ja", names=["bleu"], bootstrap=0)
    assert "tok:char" in str(result["bleu"].signature)
    assert len(caplog.records) == 1
    assert "sacrebleu[ja]" in caplog.text


def test_ter_of_long_texts_is_warned_of_once(caplog):
    bleu.warn_once.cache_clear()
    text = " ".join(f"w{i}" for i in range(80))
    with caplog.at_level(logging.WARNING):
        compute(["short"], [[text]], names=["ter"], bootstrap=0)
        compute([text], [[text]], names=["bleu"], bootstrap=0)
        assert not caplog.records
        for _ in range(2):
            compute([text], [[text]], names=["ter"], bootstrap=0)
    assert len(caplog.records) == 1
    assert "metrics.names" in caplog.text


def test_tokenized_text_is_taken_as_it_is():
    hyps, refs = ["Ein Mann , der U. S. mag ."], [["Ein Mann , der U. S. mag ."]]
    assert "tok:none" in str(compute(hyps, refs, bleu_tokenize="none", bootstrap=0)["bleu"].signature)


def test_interval_holds_the_score_and_is_reproducible():
    hyps = [f"word{i} " * (3 + i % 5) + "end of it" for i in range(60)]
    refs = [[h.replace("word", "term") if i % 3 else h] for i, h in enumerate(hyps)]
    first, again, other = (compute(hyps, refs, bootstrap=200, seed=s) for s in (1, 1, 2))
    assert first == again
    for name in METRICS:
        assert first[name].low < first[name].score < first[name].high, name
        assert (first[name].low, first[name].high) != (other[name].low, other[name].high), name
        assert first[name].score == other[name].score


def test_interval_of_a_mean_is_that_of_the_normal_approximation():
    # 400 examples of which a quarter match: the standard error of the mean is 100 sqrt(p (1 - p) / n).
    hyps = ["yes" if i % 4 == 0 else "no" for i in range(400)]
    result = compute(hyps, [["yes"]] * 400, names=["rouge1"], bootstrap=2000)["rouge1"]
    half = 1.96 * 100 * np.sqrt(0.25 * 0.75 / 400)
    assert result.score == pytest.approx(25.0)
    assert result.high - result.low == pytest.approx(2 * half, rel=0.1)


def test_no_interval_without_resamples():
    result = score(HYPS, REFS, MetricsConfig(), target_language=None, seed=1, bootstrap=0)
    for value in result.values():
        assert value.low is None
        assert value.high is None
        assert set(value.to_dict()) == {"score", "signature"}
    assert "bs:" not in str(result["bleu"].signature)
    assert Score(1.0, Signature.parse("s"), 0.5, 1.5).to_dict() == {
        "score": 1.0,
        "signature": "s",
        "low": 0.5,
        "high": 1.5,
    }


def test_best_reference_counts_for_rouge():
    result = compute(["a b c"], [["x y z", "a b c"]], names=["rouge2"], bootstrap=0)
    assert result["rouge2"].score == pytest.approx(100.0)


def test_line_breaks_end_sentences_for_lsum_and_are_spaces_elsewhere():
    broken = compute(["b\na"], [["a\nb"]], names=["rougeL", "rougeLsum", "chrf"], bootstrap=0)
    assert broken["rougeLsum"].score == pytest.approx(100.0)
    assert broken["rougeL"].score == pytest.approx(50.0)
    spaced = compute(["b a"], [["a b"]], names=["chrf"], bootstrap=0)
    assert broken["chrf"] == spaced["chrf"]


def test_sentences_end_at_marks_where_the_setting_says_so():
    hyps, refs = ["Bb cc. Aa."], [["Aa. Bb cc."]]
    by_line = compute(hyps, refs, names=["rougeL", "rougeLsum"], bootstrap=0)
    by_mark = compute(hyps, refs, names=["rougeL", "rougeLsum"], bootstrap=0, rouge_split=RougeSplit.sentences)
    assert by_line["rougeLsum"].score == by_line["rougeL"].score == by_mark["rougeL"].score == pytest.approx(200 / 3)
    assert by_mark["rougeLsum"].score == pytest.approx(100.0)
    assert "split:newline" in str(by_line["rougeLsum"].signature)
    assert "split:sentences" in str(by_mark["rougeLsum"].signature)


def test_signatures_name_the_version_of_rules_that_are_our_own():
    own = f"|pkg:rouge-score|version:{version('rouge-score')}|seq2seq:{__version__}"
    by_mark = compute(["aa"], [["aa"]], names=["rougeLsum"], bootstrap=0, rouge_split=RougeSplit.sentences)
    assert str(by_mark["rougeLsum"].signature).endswith(own)
    assert str(compute(["猫"], [["猫"]], names=["rouge1"], bootstrap=0)["rouge1"].signature).endswith(own)
    assert "seq2seq" not in str(compute(["aa"], [["aa"]], names=["rouge1"], bootstrap=0)["rouge1"].signature)


def test_outputs_in_one_line_against_several_sentences_are_warned_of_once(caplog):
    rouge.warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        compute(["aa bb"], [["aa. bb"]], names=["rougeLsum"], bootstrap=0, rouge_split=RougeSplit.sentences)
        compute(["aa bb"], [["aa. bb"]], names=["rougeL"], bootstrap=0)
        compute(["aa\nbb"], [["aa. bb"]], names=["rougeLsum"], bootstrap=0)
        compute(["a b"], [["a b."]], names=["rougeLsum"], bootstrap=0)
        compute(["aa bb."], [["aa\nbb"]], names=["rougeLsum"], bootstrap=0)  # one sentence is one line
        compute([""], [["aa. bb"]], names=["rougeLsum"], bootstrap=0)  # the setting would change nothing
        assert not caplog.records
        for _ in range(2):
            compute(["aa. bb"], [["aa\nbb"]], names=["rougeLsum"], bootstrap=0)
    assert len(caplog.records) == 1
    assert "metrics.rouge_split=sentences" in caplog.text


def test_mean_over_references_stands_beside_the_best_where_any_example_has_several():
    several = compute(["a b", "c"], [["a b", "x"], ["c"]], names=["rouge1", "rouge2"], bootstrap=0)
    assert list(several) == ["rouge1", "rouge1_mean", "rouge2", "rouge2_mean"]
    assert several["rouge1"].score == pytest.approx(100.0)
    assert several["rouge1_mean"].score == pytest.approx((50 + 100) / 2)
    assert str(several["rouge1_mean"].signature).startswith("nrefs:var|type:rouge1|measure:f1|refs:mean|")
    assert list(compute(["a b"], [["a b", "x"]], names=["rouge1"], bootstrap=0)) == ["rouge1", "rouge1_mean"]
    assert list(compute(["a b"], [["a b"]], names=["rouge1"], bootstrap=0)) == ["rouge1"]


def test_baselines_are_scored_as_a_model_is():
    sources = ["Budget meeting moved. See you there.", "Gas prices rose. Details follow."]
    refs = [["budget meeting moved", "meeting"], ["prices rise"]]
    config = MetricsConfig(
        names=["rouge1", "chrf"], bootstrap=20, baselines=["oracle", "lead"], lead_sentences=1, lead_words=2
    )
    found = score_baselines(sources, refs, config, target_language="en", seed=3)
    assert list(found) == ["oracle", "lead"]
    texts = {"lead": ["Budget meeting", "Gas prices"], "oracle": ["Budget meeting moved.", "Gas prices rose."]}
    made = {"lead": "text:lead|sentences:1|words:2", "oracle": "text:oracle"}
    for name, scores in found.items():
        expected = score(texts[name], refs, config, target_language="en", seed=3)
        assert list(scores) == ["rouge1", "rouge1_mean", "chrf"]
        for key, value in scores.items():
            assert value == dataclasses.replace(
                expected[key], signature=Signature.parse(f"{expected[key].signature}|{made[name]}")
            )


def test_references_are_described_where_outputs_are():
    config = MetricsConfig(names=["rouge1"], bootstrap=0, summary_statistics=True)
    found = score_baselines(["a b c"], [["a d"]], config, target_language=None, seed=3)
    assert list(found) == ["reference"]
    assert found["reference"]["length_ratio"].score == pytest.approx(100.0)
    assert found["reference"]["novel_1grams"].score == pytest.approx(50.0)
    assert found["reference"]["novel_1grams"].to_dict().keys() == {"score", "signature"}
    described = score_summaries(["a", "b c"], ["a", "b"], [["a"], ["b"]], config)
    assert all(score.to_dict().keys() == {"score", "signature"} for score in described.values())
    assert score_summaries(["a"], ["a"], [["a"]], MetricsConfig()) == {}
    assert score_baselines(["a"], [["a"]], MetricsConfig(), target_language=None, seed=3) == {}


def test_empty_texts_score_without_failing():
    """Nothing matches them. TER: two insertions, two deletions, and two edits of the third, for eight words."""
    hyps, refs = ["", "a b", "the Cat sat down here"], ["a b", "", "the cat sat down there now"]
    expected = {
        "bleu": sacrebleu.corpus_bleu(hyps, [refs]).score,
        "bleu_lc": sacrebleu.corpus_bleu(hyps, [refs], lowercase=True).score,
        "chrf": sacrebleu.corpus_chrf(hyps, [refs], word_order=2).score,
        "ter": 75.0,
        "rouge1": 100 / 3 * 8 / 11,  # of five words and six, four
        "rouge2": 100 / 3 * 6 / 9,  # of four pairs and five, three
        "rougeL": 100 / 3 * 8 / 11,
        "rougeLsum": 100 / 3 * 8 / 11,
    }
    found = compute(hyps, [[ref] for ref in refs], bootstrap=20)
    assert {name: value.score for name, value in found.items()} == pytest.approx(expected)
    assert 0 < expected["bleu"] < expected["bleu_lc"] < 100
    for name, value in found.items():
        assert np.isfinite([value.low, value.high]).all(), name


def test_wrong_input_is_refused():
    with pytest.raises(UserError, match="2 hypotheses against 1 references"):
        compute(["a", "b"], [["a"]])
    with pytest.raises(UserError, match="empty set"):
        compute([], [])
    with pytest.raises(UserError, match="example 2 has no reference"):
        compute(["a", "b"], [["a"], []])
    with pytest.raises(TypeError, match="list of references"):
        compute(["a"], ["a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": ["bleu", "blue"]}, "metrics.names: unknown metric 'blue'; choose from bleu, bleu_lc"),
        ({"bleu_tokenize": "moses"}, "metrics.bleu_tokenize=moses is unknown"),
        ({"bootstrap": -1}, "metrics.bootstrap=-1"),
        ({"bootstrap": 1}, "metrics.bootstrap=1"),
        ({"baselines": ["lead", "oracel"]}, "metrics.baselines: unknown baseline 'oracel'; choose from lead, oracle"),
        ({"lead_sentences": 0}, "metrics.lead_sentences=0"),
        ({"lead_words": 0}, "metrics.lead_words=0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        MetricsConfig(**settings)


def test_tokenizer_that_cannot_load_names_the_key(monkeypatch):
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    with pytest.raises(UserError, match=r"metrics.bleu_tokenize=ja-mecab cannot be used: .*sacrebleu\[ja\]"):
        compute(["a"], [["a"]], bleu_tokenize="ja-mecab")


def test_config_is_a_plain_dataclass_with_its_own_list():
    assert MetricsConfig().names is not MetricsConfig().names
    assert dataclasses.replace(MetricsConfig(), names=["ter"]).names == ["ter"]
