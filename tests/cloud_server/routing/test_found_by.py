from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud_server.kubernetes.objects import Key
from cloud_server.routing.found_by import FoundBy

KEYS = [Key("shop", name) for name in ("a", "b", "c")]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["x", "y"]), st.sampled_from(KEYS)), max_size=30))
def test_it_is_a_set_of_keys_for_each_name(steps: list[tuple[bool, str, Key]]) -> None:
    subject = FoundBy()
    model: dict[str, set[Key]] = {"x": set(), "y": set()}
    for added, name, key in steps:
        if added:
            subject.add(name, key)
            model[name].add(key)
        else:
            subject.discard(name, key)
            model[name].discard(key)
        assert {each: subject.get(each) for each in model} == {each: sorted(keys) for each, keys in model.items()}


def test_nothing_is_kept_of_what_nobody_has() -> None:
    subject = FoundBy()
    for key in KEYS:
        subject.add("x", key)
    for key in KEYS:
        subject.discard("x", key)
    assert vars(subject) == {"_one": {}, "_more": {}}
