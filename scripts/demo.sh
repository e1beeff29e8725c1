#!/usr/bin/env bash
# Trains a translator on the bundled corpus, translates three sentences, and says where to go from there.
set -euo pipefail
cd "$(dirname "$0")/.."

seq2seq train experiment=demo_translation "$@"

echo
echo "Three translations (change scripts/demo_sentences.en and run the command below again):"
echo '  seq2seq generate run=outputs/demo_translation input=scripts/demo_sentences.en'
echo
seq2seq generate run=outputs/demo_translation input=scripts/demo_sentences.en | paste -d '\n' scripts/demo_sentences.en - | sed 'n; s/^/    /'

cat <<'END'

What next:
  look at curves, samples and attention   tensorboard --logdir outputs/demo_translation    (then open http://localhost:6006)
  score the run again                     seq2seq evaluate run=outputs/demo_translation
  train on your own files                 seq2seq train name=mine data.train.source=train.en data.train.target=train.de \
                                            data.valid.source=valid.en data.valid.target=valid.de
  everything of this run                  outputs/demo_translation/  (results.json, train.log, generations/, checkpoints/)
The command `seq2seq` is in .venv/bin:    source .venv/bin/activate
END
