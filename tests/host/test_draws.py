"""First numbers of named streams: those that the streams themselves would give."""

from hypothesis import given
from hypothesis import strategies as st

from podcluster.host.draws import first_numbers
from podcluster.rng import stream

NAMES = st.lists(st.text(st.characters(exclude_characters="/"), min_size=1), max_size=8)


@given(seed=st.integers(0, 2**130), domain=st.integers(0, 10**6), names=NAMES)
def test_first_numbers_are_those_of_the_streams(seed: int, domain: int, names: list[str]) -> None:
    """[RN-1], for seeds of one word and of several."""
    path = ("domain", domain, 1)
    assert first_numbers(seed, path, names) == [stream(seed, *path, name).random() for name in names]
