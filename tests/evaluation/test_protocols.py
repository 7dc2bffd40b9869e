"""What the protocols remove from the gallery, by hand, by plain loops, and on real file names."""

import gzip

import naive_retrieval
import numpy as np
import pytest

from aima_jax.evaluation.protocols import GalleryLabels, removed_images

MARKET = {"cameras": True, "query_folder": "query"}
NO_CAMERAS = {"cameras": False, "query_folder": None}


def labels_of(images):
    names = ("category", "identity", "camera", "filename")
    return GalleryLabels(*(np.array([image[name] for image in images]) for name in names))


def image(category, identity, camera, filename):
    return {"category": category, "identity": identity, "camera": camera, "filename": filename}


def naive_removed(images, protocol, cameras):
    categories = {image["category"] for image in images}
    parts = (naive_retrieval.removed_from(c, images, protocol, cameras) for c in categories)
    return sorted(set().union(*parts))


MARKET_IMAGES = [
    image(0, 7, 2, "bounding_box_test/0007_c2s1_000100_00.jpg"),  # as the representative
    image(0, 7, 3, "query/0007_c3s1_000200_00.jpg"),
    image(0, 7, 2, "query/0007_c2s1_000300_00.jpg"),  # the representative: first by name
    image(0, 3, 2, "bounding_box_test/0003_c2s1_000400_00.jpg"),  # another identity
    image(0, 9, 2, "query/0009_c2s1_000500_00.jpg"),
    image(1, 8, 1, "query/0008_c1s1_000600_00.jpg"),
    image(1, 8, 1, "bounding_box_test/0008_c1s1_000700_00.jpg"),
]


def test_sal_on_market_removes_the_representative_with_its_camera():
    removed = removed_images("sal", labels_of(MARKET_IMAGES), MARKET)
    assert np.flatnonzero(removed).tolist() == [0, 2, 5, 6]


def test_sal_without_cameras_removes_the_first_image_by_name():
    images = [
        image(4, 1, -1, "images/00003.png"),
        image(4, 1, -1, "images/00001.png"),
        image(4, 1, -1, "images/00002.png"),
        image(2, 5, -1, "images/00004.png"),
    ]
    removed = removed_images("sal", labels_of(images), NO_CAMERAS)
    assert np.flatnonzero(removed).tolist() == [1, 3]


def test_each_trait_counts_by_itself():
    labels = labels_of(MARKET_IMAGES)
    in_folder = {"cameras": False, "query_folder": "query"}
    assert np.flatnonzero(removed_images("sal", labels, in_folder)).tolist() == [2, 5]
    anywhere = {"cameras": True, "query_folder": None}
    # First by name: 0003_c2 of category 0 and 0007_c1 of category 1.
    assert np.flatnonzero(removed_images("sal", labels, anywhere)).tolist() == [3, 5, 6]


@pytest.mark.parametrize("protocol", ["standard", "asmr"])
def test_the_others_remove_nothing(protocol):
    assert not removed_images(protocol, labels_of(MARKET_IMAGES), MARKET).any()


@pytest.mark.parametrize("traits", [MARKET, NO_CAMERAS])
def test_sal_is_that_of_plain_loops_in_any_order_of_records(shared_data, traits):
    cameras = traits["cameras"]
    file = shared_data / "annotations/market1501/filenames.txt.gz"
    names = gzip.decompress(file.read_bytes()).decode().split()
    images = []
    for name in names:
        folder, file = name.split("/")
        identity = file.split("_")[0]
        if folder != "bounding_box_train" and file.endswith(".jpg") and int(identity) > 0:
            camera = int(file.split("_c")[1][0])
            images.append(image(int(identity) % 97, int(identity), camera, name))
    assert len(images) == 16_483
    images = [images[index] for index in np.random.default_rng(0).permutation(len(images))]
    removed = np.flatnonzero(removed_images("sal", labels_of(images), traits))
    assert removed.tolist() == naive_removed(images, "sal", cameras)
    assert len(removed) > 97 if cameras else len(removed) == 97


@pytest.mark.usefixtures("unchecked")
def test_what_has_no_rule_is_refused():
    labels = labels_of(MARKET_IMAGES)
    with pytest.raises(ValueError, match="expected one of standard, sal, asmr"):
        removed_images("SAL", labels, MARKET)
    with pytest.raises(ValueError, match=r"folder query/: categories \[1\] have none"):
        removed_images("sal", labels_of(MARKET_IMAGES[:5] + MARKET_IMAGES[6:]), MARKET)
    with pytest.raises(ValueError, match="one length"):
        GalleryLabels(labels.category[1:], labels.identity, labels.camera, labels.filename)
