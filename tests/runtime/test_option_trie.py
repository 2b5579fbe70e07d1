"""Options as a trie: every token scored, every place computed once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.runtime.option_trie import OptionTrie

OPTIONS = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple), min_size=1, max_size=8
)


@settings(deadline=None, max_examples=400)
@given(options=OPTIONS, from_root=st.booleans())
def test_each_token_is_scored_once_and_each_place_computed_once(
    options: list[tuple[int, ...]], from_root: bool
) -> None:
    walks = OptionTrie(options).walks(from_root=from_root)
    scored = [
        (*walk.tokens[:end], token)
        for walk in walks
        for end, targets in enumerate(walk.targets, start=walk.start)
        for token in targets
    ]
    begun = {ids[:end] for ids in options for end in range(1, len(ids) + 1)}
    assert sorted(scored) == sorted(ids for ids in begun if from_root or len(ids) > 1)
    places = [
        walk.tokens[:end] for walk in walks for end in range(walk.start, len(walk.tokens) + 1)
    ]
    assert len(places) == len(set(places))
    assert set(places) == {ids[:-1] for ids in scored}
    # What stands before a walk's own part was computed by an earlier one.
    for number, walk in enumerate(walks):
        before = {other.tokens[:end] for other in walks[:number] for end in range(99)}
        assert not walk.start or walk.tokens[: walk.start - 1] in before | {()}
    assert (
        max(map(len, options)) == 1
        or not from_root
        or len(walks[0].tokens) == (max(map(len, options)) - 1)
    )
