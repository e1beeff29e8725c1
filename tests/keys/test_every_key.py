"""Which test fails when a key is ignored: a row for each key, checked for completeness against the dataclasses."""

import ast
from pathlib import Path

import pytest

from seq2seq.config.parse import schema_fields

SECTIONS = ("trainer", "optim", "model", "search", "tokenizer", "data", "metrics")
ROOT = Path(__file__).resolve().parents[2]

# Key to test, by section: `FILE::NAME`, the file below tests/.
TRAINER: dict[str, str] = {
    "trainer.accumulate": "properties/test_training.py::test_micro_batches_equal_one_batch",
    "trainer.attention_images": "keys/test_trainer.py::test_attention_images",
    "trainer.average": "keys/test_trainer.py::test_average_of_the_last",
    "trainer.average_checkpoints": "keys/test_trainer.py::test_average_of_the_best",
    "trainer.batch_tokens": "keys/test_trainer.py::test_batch_tokens",
    "trainer.checkpoint_activations": "keys/test_trainer.py::test_checkpoint_activations",
    "trainer.compile": "keys/test_trainer.py::test_compile",
    "trainer.coverage_loss_start": "keys/test_trainer.py::test_coverage_loss_weight_and_start",
    "trainer.coverage_loss_weight": "keys/test_trainer.py::test_coverage_loss_weight_and_start",
    "trainer.deterministic": "faults/test_repeats.py::test_training_that_is_deterministic_refuses_such_an_operation",
    "trainer.device": "keys/test_trainer.py::test_device",
    "trainer.eval_every": "keys/test_trainer.py::test_eval_every",
    "trainer.eval_examples": "keys/test_trainer.py::test_eval_examples",
    "trainer.init_from": "keys/test_trainer.py::test_init_from",
    "trainer.init_tokenizer": "integration/test_fine_tuning.py::test_an_own_tokenizer_keeps_the_rows_that_both_know",
    "trainer.keep_best": "keys/test_trainer.py::test_keep_best",
    "trainer.keep_last": "keys/test_trainer.py::test_keep_last",
    "trainer.label_smoothing": "keys/test_trainer.py::test_label_smoothing",
    "trainer.log_every": "keys/test_trainer.py::test_log_every",
    "trainer.max_epochs": "keys/test_trainer.py::test_max_epochs",
    "trainer.max_minutes": "keys/test_trainer.py::test_minutes_of_a_process_and_of_the_run",
    "trainer.max_skipped_steps": "keys/test_trainer.py::test_max_skipped_steps",
    "trainer.max_steps": "keys/test_trainer.py::test_max_steps",
    "trainer.metric": "keys/test_trainer.py::test_metric_and_its_mode_choose_the_best",
    "trainer.metric_mode": "unit/training/test_config.py::test_a_mode_that_contradicts_the_metric_is_refused",
    "trainer.overfit_batches": "keys/test_debug.py::test_the_same_batches_are_trained_on_in_each_epoch",
    "trainer.patience": "keys/test_trainer.py::test_patience",
    "trainer.precision": "keys/test_trainer.py::test_precision",
    "trainer.samples": "keys/test_trainer.py::test_samples",
    "trainer.save_every": "keys/test_trainer.py::test_save_every",
    "trainer.save_failure": "faults/test_training_faults.py::test_a_full_disk_at_a_save_may_be_survived",
    "trainer.stop_after_minutes": "keys/test_trainer.py::test_minutes_of_a_process_and_of_the_run",
    "trainer.threads": "keys/test_trainer.py::test_threads_and_the_precision_of_the_machine",
    "trainer.profile_steps": "keys/test_profiling.py::test_profile_steps",
    "trainer.timeout_minutes": "keys/test_trainer.py::test_timeout_minutes",
}
OPTIM: dict[str, str] = {
    "optim.betas": "keys/test_optim.py::test_an_update_is_that_of_the_optimizer",
    "optim.clip_norm": "keys/test_optim.py::test_the_gradient_is_clipped_to_its_norm",
    "optim.ema_decay": "keys/test_optim.py::test_the_moving_average_is_what_is_evaluated_and_kept",
    "optim.eps": "keys/test_optim.py::test_an_update_is_that_of_the_optimizer",
    "optim.horizon_steps": "keys/test_optim.py::test_the_learning_rate_is_the_schedules",
    "optim.lr": "keys/test_optim.py::test_the_learning_rate_is_the_schedules",
    "optim.min_lr_ratio": "keys/test_optim.py::test_the_learning_rate_is_the_schedules",
    "optim.name": "keys/test_optim.py::test_an_update_is_that_of_the_optimizer",
    "optim.plateau_factor": "keys/test_optim.py::test_the_learning_rate_is_the_schedules",
    "optim.plateau_patience": "keys/test_optim.py::test_the_learning_rate_is_the_schedules",
    "optim.schedule": "keys/test_optim.py::test_the_learning_rate_is_the_schedules",
    "optim.warmup_steps": "keys/test_optim.py::test_the_learning_rate_is_the_schedules",
    "optim.weight_decay": "keys/test_optim.py::test_an_update_is_that_of_the_optimizer",
}
MODEL: dict[str, str] = {
    "model.activation": "keys/test_model.py::test_the_transformer_computes_what_torch_does",
    "model.activation_dropout": "keys/test_dropout.py::test_dropout_in_its_place",
    "model.attention": "keys/test_model.py::test_attention",
    "model.attention_dropout": "keys/test_dropout.py::test_dropout_in_its_place",
    "model.attention_size": "keys/test_model.py::test_sizes",
    "model.copy": "keys/test_model.py::test_copy",
    "model.copy_attention": "keys/test_model.py::test_copy_attention",
    "model.coverage": "keys/test_model.py::test_coverage",
    "model.d_ff": "keys/test_model.py::test_sizes",
    "model.d_model": "keys/test_model.py::test_sizes",
    "model.decoder_layers": "keys/test_model.py::test_sizes",
    "model.dropout": "keys/test_dropout.py::test_dropout_in_its_place",
    "model.embedding_size": "keys/test_model.py::test_sizes",
    "model.encoder_layers": "keys/test_model.py::test_sizes",
    "model.encoder_size": "keys/test_model.py::test_sizes",
    "model.family": "keys/test_model.py::test_family",
    "model.input_feeding": "keys/test_model.py::test_input_feeding",
    "model.max_positions": "keys/test_model.py::test_max_positions",
    "model.norm": "keys/test_model.py::test_the_transformer_computes_what_torch_does",
    "model.num_heads": "keys/test_model.py::test_the_transformer_computes_what_torch_does",
    "model.positions": "keys/test_model.py::test_the_transformer_computes_what_torch_does",
    "model.tie_embeddings": "keys/test_model.py::test_tie_embeddings",
}
SEARCH: dict[str, str] = {
    "search.batch_size": "keys/test_search.py::test_batch",
    "search.batch_tokens": "keys/test_search.py::test_batch",
    "search.beam_size": "keys/test_search.py::test_beam_size",
    "search.coverage_penalty": "keys/test_search.py::test_a_wide_beam_finds_the_best_of_all",
    "search.length_normalization": "keys/test_search.py::test_a_wide_beam_finds_the_best_of_all",
    "search.length_penalty": "keys/test_search.py::test_a_wide_beam_finds_the_best_of_all",
    "search.max_length": "keys/test_search.py::test_a_wide_beam_finds_the_best_of_all",
    "search.max_length_ratio": "keys/test_search.py::test_max_length_ratio",
    "search.min_length": "keys/test_search.py::test_a_wide_beam_finds_the_best_of_all",
    "search.n_best": "keys/test_search.py::test_a_wide_beam_finds_the_best_of_all",
    "search.no_repeat_ngram": "keys/test_search.py::test_a_wide_beam_finds_the_best_of_all",
    "search.precision": "keys/test_search.py::test_precision",
    "search.sampling": "keys/test_search.py::test_samples_have_the_distribution",
    "search.seed": "keys/test_search.py::test_seed",
    "search.temperature": "keys/test_search.py::test_samples_have_the_distribution",
    "search.top_k": "keys/test_search.py::test_samples_have_the_distribution",
    "search.top_p": "keys/test_search.py::test_samples_have_the_distribution",
}
TOKENIZER: dict[str, str] = {
    "tokenizer.byte_fallback": "keys/test_tokenizer.py::test_byte_fallback_keeps_what_is_not_in_the_vocabulary",
    "tokenizer.character_coverage": "keys/test_tokenizer.py::test_character_coverage_spells_rare_characters_in_bytes",
    "tokenizer.joint": "keys/test_tokenizer.py::test_joint_is_one_vocabulary_or_two",
    "tokenizer.kind": "keys/test_tokenizer.py::test_kind_is_the_kind_of_sentencepiece_model",
    "tokenizer.line_breaks": "keys/test_tokenizer.py::test_line_breaks_are_symbols_or_spaces",
    "tokenizer.lowercase": "keys/test_tokenizer.py::test_lowercase_makes_one_word_of_two",
    "tokenizer.max_sentences": "keys/test_tokenizer.py::test_max_sentences_is_how_many_the_tokenizer_sees",
    "tokenizer.min_frequency": "keys/test_tokenizer.py::test_min_frequency_leaves_rarer_words_unknown",
    "tokenizer.normalization": "keys/test_tokenizer.py::test_normalization_is_what_texts_go_through",
    "tokenizer.sampling_alpha": "keys/test_tokenizer.py::test_sampling_alpha_gives_every_epoch_other_tokens",
    "tokenizer.sampling_nbest": "keys/test_tokenizer.py::test_sampling_nbest_is_how_many_ways_a_text_is_split",
    "tokenizer.source_vectors": "keys/test_tokenizer.py::test_vectors_are_the_first_embeddings_of_their_words",
    "tokenizer.target_vectors": "keys/test_tokenizer.py::test_vectors_are_the_first_embeddings_of_their_words",
    "tokenizer.user_symbols": "keys/test_tokenizer.py::test_user_symbols_are_one_token_each",
    "tokenizer.vocab_size": "keys/test_tokenizer.py::test_vocab_size_is_the_number_of_tokens",
    "tokenizer.word_tokenizer": "keys/test_tokenizer.py::test_word_tokenizer_is_how_words_are_split",
}
DATA: dict[str, str] = {
    "data.drop_duplicates": "keys/test_data.py::test_filters_drop_their_training_examples_only",
    "data.drop_identical": "keys/test_data.py::test_filters_drop_their_training_examples_only",
    "data.on_error": "keys/test_data.py::test_unreadable_records_stop_or_are_left_out",
    "data.encoding_errors": "keys/test_data.py::test_bytes_that_are_no_text_are_refused_or_replaced",
    "data.max_length_ratio": "keys/test_data.py::test_filters_drop_their_training_examples_only",
    "data.max_source_length": "keys/test_data.py::test_long_texts_are_dropped_in_training_and_cut_elsewhere",
    "data.max_target_length": "keys/test_data.py::test_long_texts_are_dropped_in_training_and_cut_elsewhere",
    "data.on_long": "keys/test_data.py::test_long_training_texts_can_be_cut_instead",
    "data.root": "keys/test_data.py::test_relative_files_lie_below_root",
    "data.source_language": "keys/test_data.py::test_check_compares_letters_with_the_languages",
    "data.target_language": "keys/test_data.py::test_the_target_language_chooses_how_scores_count",
    "data.test": "keys/test_data.py::test_a_test_set_typed_for_evaluate_is_read_as_named",
    "data.train.path": "keys/test_data.py::test_each_corpus_is_read_from_its_path",
    "data.train.references_field": "keys/test_data.py::test_training_examples_without_the_references_named_are_refused",
    "data.train.source": "keys/test_data.py::test_each_corpus_is_read_from_its_two_files",
    "data.train.source_field": "keys/test_data.py::test_each_corpus_has_the_field_named",
    "data.train.target": "keys/test_data.py::test_each_corpus_is_read_from_its_two_files",
    "data.train.target_field": "keys/test_data.py::test_each_corpus_has_the_field_named",
    "data.valid.path": "keys/test_data.py::test_each_corpus_is_read_from_its_path",
    "data.valid.references_field": "keys/test_data.py::test_validation_is_scored_against_further_references",
    "data.valid.source": "keys/test_data.py::test_each_corpus_is_read_from_its_two_files",
    "data.valid.source_field": "keys/test_data.py::test_each_corpus_has_the_field_named",
    "data.valid.target": "keys/test_data.py::test_each_corpus_is_read_from_its_two_files",
    "data.valid.target_field": "keys/test_data.py::test_each_corpus_has_the_field_named",
}
METRICS: dict[str, str] = {
    "metrics.baselines": "keys/test_metrics.py::test_baselines_are_scored_beside_the_model",
    "metrics.bleu_tokenize": "keys/test_metrics.py::test_bleu_counts_the_tokens_of_the_tokenizer_named",
    "metrics.bootstrap": "keys/test_metrics.py::test_bootstrap_is_the_number_of_resamples",
    "metrics.lead_sentences": "keys/test_metrics.py::test_the_lead_has_so_many_sentences_and_words_at_most",
    "metrics.lead_words": "keys/test_metrics.py::test_the_lead_has_so_many_sentences_and_words_at_most",
    "metrics.names": "keys/test_metrics.py::test_names_are_what_is_computed",
    "metrics.rouge_split": "keys/test_metrics.py::test_rouge_lsum_takes_sentences_apart_where_told",
    "metrics.rouge_stemmer": "keys/test_metrics.py::test_rouge_compares_stems_or_whole_words",
    "metrics.summary_statistics": "keys/test_metrics.py::test_summaries_are_described_where_asked_for",
}
TESTS = TRAINER | OPTIM | MODEL | SEARCH | TOKENIZER | DATA | METRICS

# Keys that change what is shown and nothing else, with the reason why no test asks what a user gets from them.
DISPLAY: dict[str, str] = {}


def keys() -> list[str]:
    """All keys of the sections, without the sections themselves."""
    known = sorted(schema_fields())
    return [
        key
        for key in known
        if key.split(".")[0] in SECTIONS and "." in key and not any(other.startswith(f"{key}.") for other in known)
    ]


def test_every_key_has_a_test() -> None:
    assert sorted(TESTS | DISPLAY) == keys()
    assert not TESTS.keys() & DISPLAY.keys()


@pytest.mark.parametrize("test", sorted(set(TESTS.values())))
def test_the_test_exists(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
