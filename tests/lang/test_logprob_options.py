"""Log-probability options: details need the switch, and False turns off what run asked for."""

from typing import Any

import pytest

from sapwood.lang.sampling import Sampling
from sapwood.runtime.errors import InvalidRequest


@pytest.mark.parametrize(
    "options",
    [{"logprob_start_len": 0}, {"top_logprobs_num": 2}, {"return_text_in_logprobs": True}],
    ids=str,
)
def test_details_without_the_switch_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(options))):
        Sampling(**options).logprobs()
    assert Sampling(**options, return_logprob=True).logprobs() is not None
    assert Sampling(**options, return_logprob=False).logprobs() is None


def test_idle_details_ask_for_nothing() -> None:
    idle = Sampling(logprob_start_len=-1, top_logprobs_num=0, return_text_in_logprobs=False)
    assert idle.logprobs() is None
