"""Keys given on the command line that are hardly meant beside the value of another key: warnings."""

import math
import re
from collections.abc import Callable, Collection

from seq2seq.config import saved
from seq2seq.config.given import override_value
from seq2seq.config.schema import Config
from seq2seq.system.plain_yaml import flatten
from seq2seq.training.optim_config import Schedule

# A key, whether its value is odd in a configuration, and why, with the values of keys in braces. What cannot be meant
# is refused by the dataclasses; these could be meant, but rarely are.
_Odd = tuple[str, Callable[[Config], bool], str]
_ODD: tuple[_Odd, ...] = (
    (
        "trainer.eval_every",
        lambda c: c.trainer.eval_every > (c.trainer.max_steps or math.inf),
        "is above trainer.max_steps={trainer.max_steps}: the only evaluation is at the end",
    ),
    (
        "trainer.patience",
        lambda c: (c.trainer.patience or 0) * c.trainer.eval_every >= (c.trainer.max_steps or math.inf),
        "evaluations, one every {trainer.eval_every} steps, take all of trainer.max_steps={trainer.max_steps}: the run "
        "never ends early",
    ),
    (
        "trainer.log_every",
        lambda c: c.trainer.log_every > (c.trainer.max_steps or math.inf),
        "is above trainer.max_steps={trainer.max_steps}: only the last step is logged",
    ),
    (
        "optim.warmup_steps",
        lambda c: 0 < c.optim.warmup_steps == c.trainer.max_steps,
        "is all of trainer.max_steps={trainer.max_steps}: the learning rate only rises",
    ),
    (
        "optim.horizon_steps",
        lambda c: (c.optim.horizon_steps or math.inf) < (c.trainer.max_steps or 0),
        "is below trainer.max_steps={trainer.max_steps}: from there on the learning rate is that of optim.min_lr_ratio="
        "{optim.min_lr_ratio}",
    ),
    (
        "optim.min_lr_ratio",
        lambda c: c.optim.min_lr_ratio == 1 and c.optim.schedule is not Schedule.constant,
        "keeps the learning rate constant, whatever optim.schedule={optim.schedule}",
    ),
    (
        "trainer.stop_after_minutes",
        lambda c: (c.trainer.stop_after_minutes or 0) >= (c.trainer.max_minutes or math.inf),
        "is not below trainer.max_minutes={trainer.max_minutes}: the run is complete before it has to stop",
    ),
    (
        "trainer.samples",
        lambda c: c.trainer.samples > c.trainer.eval_examples,
        "is above trainer.eval_examples={trainer.eval_examples}: no more examples are decoded to be shown",
    ),
    (
        "trainer.attention_images",
        lambda c: c.trainer.attention_images > c.trainer.samples,
        "is above trainer.samples={trainer.samples}: attention is drawn for examples that are shown only",
    ),
    (
        "tokenizer.sampling_nbest",
        lambda c: c.tokenizer.sampling_nbest != -1 and c.tokenizer.sampling_alpha == 0,
        "has no influence without tokenizer.sampling_alpha above 0",
    ),
)  # fmt: skip


def odd_keys(config: Config, given: Collection[str]) -> dict[str, str]:
    """Returns a warning for each given key that is hardly meant like this beside another key's value.

    Args:
        config: The configuration.
        given: Keys given on the command line; nothing is said about others.

    Returns:
        By key, what is odd about it.
    """
    values = {key: override_value(value) for key, value in flatten(saved.to_mapping(config)).items()}
    return {
        key: f"{key}={values[key]} " + re.sub(r"\{(.+?)\}", lambda match: values[match[1]], reason)
        for key, is_odd, reason in _ODD
        if key in given and is_odd(config)
    }
