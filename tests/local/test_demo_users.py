"""The people of the laptop's user pool."""

from __future__ import annotations

import re

from local.demo_users import password


def test_a_password_has_all_kinds_of_characters_and_is_new_each_time() -> None:
    made = {password() for _ in range(50)}
    assert len(made) == 50
    for each in made:
        assert len(each) == 20
        assert all(re.search(kind, each) for kind in ("[a-z]", "[A-Z]", "[0-9]", "[-_.+]"))
