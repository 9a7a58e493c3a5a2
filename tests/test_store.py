"""The store of activations: what goes in comes out, damage is noticed, keys hold everything."""

from pathlib import Path

import pytest
import torch

from mammopath.cohort.store import Stored, TokenStore, view_key


def stored(seed: int = 0) -> Stored:
    generator = torch.Generator().manual_seed(seed)
    return Stored(
        tokens=torch.randn(5, 3, generator=generator).half(),
        valid=torch.tensor([True, True, False, True]),
        lesion=torch.tensor([0.0, 1.0, float("nan"), 0.5]).half(),
        statistics=torch.randn(2, 9, generator=generator).half(),
        grid=torch.tensor([2, 2]),
    )


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    store = TokenStore(tmp_path)
    key = view_key("recipe", "image", 0)
    store.put(key, stored())
    found, put = vars(store.get(key)), vars(stored())
    torch.testing.assert_close(found, put, rtol=0, atol=0, equal_nan=True)
    assert found["lesion"].isnan().tolist() == [False, False, True, False]


def test_a_key_depends_on_recipe_image_and_view() -> None:
    names = {view_key(r, i, d) for r in ("a", "b") for i in ("x", "y") for d in (0, 1)}
    assert len(names) == 8


def test_a_missing_view_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        TokenStore(tmp_path).get("0" * 64)


def test_a_damaged_view_is_removed_so_that_it_is_made_again(tmp_path: Path) -> None:
    store = TokenStore(tmp_path)
    key = view_key("recipe", "image", 0)
    store.put(key, stored())
    store.path(key).write_bytes(store.path(key).read_bytes()[:40])
    with pytest.raises(KeyError):
        store.get(key)
    assert not store.has(key)


def test_two_writers_of_one_key_leave_one_whole_file(tmp_path: Path) -> None:
    store = TokenStore(tmp_path)
    key = view_key("recipe", "image", 0)
    store.put(key, stored())
    store.put(key, stored())
    assert [p.name for p in store.path(key).parent.iterdir()] == [f"{key}.safetensors"]
    assert store.has(key)
