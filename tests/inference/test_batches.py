"""Images that are computed together."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from d2pd.inference.batches import in_batches


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(1, 6))
def test_batches_keep_the_order_share_a_key_and_are_as_full_as_can_be(keys, size):
    items = [*enumerate(keys)]

    batches = [*in_batches(items, lambda item: item[1], size)]

    assert [item for batch in batches for item in batch] == items
    assert all(len({key for _, key in batch}) == 1 for batch in batches)
    assert all(1 <= len(batch) <= size for batch in batches)
    for batch, following in pairwise(batches):
        assert len(batch) == size or batch[0][1] != following[0][1]
