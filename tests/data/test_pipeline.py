"""A batch is a function of seed and step, whoever makes it and wherever the run started."""

import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from splits import SIZE, Reads, batches, make_split

from aima_jax.data import decode_all, evaluation_batches


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def working_threads():
    return [t for t in threading.enumerate() if t.name.startswith("in_threads")]


def no_thread_stays():
    for thread in working_threads():
        thread.join(timeout=20)
    return not working_threads()


def test_an_epoch_is_a_permutation_without_the_remainder():
    made = batches()
    assert (len(made), made.steps_per_epoch) == (12, 4)
    order = np.stack([made.indices(step) for step in range(12)]).reshape(3, 48)
    assert all(len(set(epoch)) == 48 and set(epoch) <= set(range(53)) for epoch in order.tolist())
    assert len({frozenset(epoch) for epoch in order.tolist()}) == 3, "the remainder changes"
    # A random permutation of 53 leaves one number in its place, on average.
    assert max(np.mean(a == b) for a, b in itertools.combinations(order, 2)) < 0.2


def test_neighbouring_seeds_have_no_epoch_in_common():
    orders = [batches(seed=seed, epochs=6) for seed in range(6)]
    epochs = [tuple(o.indices(4 * e)) for o in orders for e in range(6)]
    assert len(set(epochs)) == 36


def test_batches_hold_the_pictures_and_categories_of_their_indices():
    made = batches()
    for step, batch in enumerate(made):
        assert batch["image"].shape == (12, *SIZE, 3) and batch["image"].dtype == np.uint8
        assert batch["category"].dtype == batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["index"], made.indices(step))
        np.testing.assert_array_equal(batch["category"], 100 + batch["index"])
        assert (batch["image"] == batch["index"][:, None, None, None]).all()
    assert step == 11


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 1, "prefetch": 1},
        {"threads": 5, "prefetch": 7},
        {"cache": "host"},
        {"start_step": 7},
        {"start_step": 4, "cache": "host", "epochs": 2},
    ],
    ids=str,
)
def test_the_batch_depends_on_seed_and_step_alone(changes):
    expected = list(batches())
    made = batches(**changes)
    found = list(made)
    assert len(found) == len(made) - made.start_step
    assert all(same(a, b) for a, b in zip(found, expected[made.start_step :], strict=False))


@pytest.mark.parametrize("hosts", [2, 3, 12])
def test_any_number_of_hosts_sees_the_same_global_batch(hosts):
    of_hosts = [batches(process_index=p, process_count=hosts) for p in range(hosts)]
    for whole, *parts in zip(batches(), *of_hosts, strict=True):
        joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
        assert same(whole, joined)
    np.testing.assert_array_equal(of_hosts[1].indices(3), batches().indices(3))


def test_a_host_decodes_its_own_rows_alone():
    reads = Reads(53)
    made = batches(split=make_split(53, reads), process_index=1, process_count=3)
    rows = np.concatenate([made.indices(step)[4:8] for step in range(12)])
    assert len(list(made)) == 12
    assert sorted(reads.read) == sorted(rows)


def test_a_resume_decodes_nothing_of_what_was_before():
    reads = Reads(53)
    iterator = iter(batches(split=make_split(53, reads), epochs=10**6, start_step=3 * 10**6))
    next(iterator)
    iterator.close()
    assert 12 <= len(reads.read) <= 6 * 12


def test_nothing_is_left_after_the_last_step():
    assert list(batches(start_step=12)) == []


@pytest.mark.parametrize("cache", ["none", "host"])
def test_a_bad_picture_stops_the_consumer_and_is_named(cache):
    split = make_split(53, Reads(53, bad=[17]))
    with pytest.raises(ValueError, match=r"picture 17 of greys train, greys/17\.png"):
        list(batches(split=split, cache=cache, epochs=4))
    assert no_thread_stays()


def test_a_bad_picture_does_not_hide_the_batches_before_it():
    made = batches(epochs=1)
    bad = int(made.indices(2)[0])
    iterator = iter(batches(split=make_split(53, Reads(53, bad=[bad])), epochs=1))
    assert [next(iterator)["index"][0] for _ in range(2)] == [made.indices(s)[0] for s in (0, 1)]
    with pytest.raises(ValueError, match=f"picture {bad} "):
        next(iterator)


def test_leaving_early_ends_the_threads():
    for _ in batches(split=make_split(53, Reads(53, seconds=0.01)), epochs=1000, prefetch=8):
        assert working_threads()
        break
    assert no_thread_stays()


def test_the_interpreter_exits_while_batches_are_in_the_making():
    program = """
import sys
from splits import Reads, batches, make_split
kept = iter(batches(split=make_split(53, Reads(53, seconds=0.01)), epochs=1000))
next(kept)
sys.exit(75)
"""
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, timeout=300
    )
    assert done.returncode == 75


def test_waiting_is_counted():
    made = batches(24, split=make_split(24, Reads(24, seconds=0.02)), epochs=1, threads=1)
    assert made.waited == 0
    for _ in made:
        pass
    assert made.waited > 0.02 * 24 * 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 54}, "batch_size is 54; expected 1 to 53"),
        ({"batch_size": 0}, "batch_size is 0; expected 1 to 53"),
        ({"process_count": 5}, "batch_size is 12; expected a multiple of the 5 hosts"),
        ({"cache": "disk"}, "cache is 'disk'; expected"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        batches(**changes)


@pytest.mark.parametrize(("count", "hosts"), [(53, 1), (53, 3), (48, 4), (5, 3), (1, 12)])
def test_evaluation_holds_every_picture_once_in_order(count, hosts):
    split = make_split(count)
    of_hosts = [
        list(
            evaluation_batches(
                split, batch_size=12, image_size=SIZE, process_index=p, process_count=hosts
            )
        )
        for p in range(hosts)
    ]
    assert {len(made) for made in of_hosts} == {-(-count // 12)}
    in_order = np.concatenate([part for parts in zip(*of_hosts, strict=True) for part in parts])
    assert in_order.shape == (12 * len(of_hosts[0]), *SIZE, 3)
    expected = np.arange(len(in_order)) * (np.arange(len(in_order)) < count)
    assert (in_order == expected[:, None, None, None]).all()


def test_evaluation_names_a_bad_picture():
    split = make_split(20, Reads(20, bad=[19]))
    with pytest.raises(ValueError, match=r"greys/19\.png"):
        list(evaluation_batches(split, batch_size=6, image_size=SIZE))


def test_the_decoded_split_equals_its_pictures():
    split = make_split(20)
    indices = np.array([3, 3, 19, 0])
    np.testing.assert_array_equal(decode_all(split, SIZE), split.images(np.arange(20), SIZE))
    np.testing.assert_array_equal(
        decode_all(split, SIZE, indices, threads=3), split.images(indices, SIZE)
    )
