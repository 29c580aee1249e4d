"""A setting of the wrong type is an `InputError`, in each settings class that users make."""

from dataclasses import fields

import pytest

from sge2hist import EvaluateConfig, InputError, PrepareConfig, TrainConfig

NOT_CHECKED = {"PrepareConfig.seed", "EvaluateConfig.max_copies_checked", "EvaluateConfig.extractor_input_px"}
NUMBERS = [
    (config, field.name)
    for config in (TrainConfig, PrepareConfig, EvaluateConfig)
    for field in fields(config)
    if str(field.type).startswith(("int", "float")) and f"{config.__name__}.{field.name}" not in NOT_CHECKED
]


@pytest.mark.parametrize(("config", "name"), NUMBERS)
def test_text_for_a_number_is_refused(config, name):
    with pytest.raises(InputError):
        config(**{name: "many"})
