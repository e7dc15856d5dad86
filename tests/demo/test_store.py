import hashlib

import pytest
from PIL import Image

from adapterbench.core.errors import UserError
from adapterbench.demo.store import ImageStore

RED, BLUE, GREEN = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green"))


def test_an_image_comes_back_by_its_digest() -> None:
    store = ImageStore()
    toy_image = store.put(RED, "red.png")
    assert (toy_image.caption, toy_image in store) == ("red.png", True)
    assert hashlib.sha256(store.png(toy_image)).hexdigest() == toy_image.sha256
    assert store.image(toy_image).tobytes() == RED.tobytes()


def test_equal_images_are_kept_once() -> None:
    store = ImageStore()
    first, second = store.put(RED, "a"), store.put(RED.copy(), "b")
    assert first.sha256 == second.sha256
    assert store.size == len(store.png(first))


def test_those_not_used_for_longest_go() -> None:
    sizes = ImageStore()
    for image in (RED, BLUE, GREEN):
        sizes.put(image, "")
    store = ImageStore(max_bytes=sizes.size - 1)
    red, blue = store.put(RED, "red.png"), store.put(BLUE, "blue.png")
    store.image(red)
    store.put(GREEN, "green.png")
    assert red in store
    assert blue not in store
    with pytest.raises(UserError, match=r"blue\.png is no longer kept: choose it again"):
        store.image(blue)
