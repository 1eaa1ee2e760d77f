"""Planning: no moment is left out, whatever was read before."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kuaimai.extract.windows import (
    SealedSpan,
    Shop,
    Window,
    cells,
    gaps,
    halves,
    plan,
    sealed_since,
    split,
    window_id,
)

T0 = datetime(2026, 3, 1, tzinfo=timezone.utc)
FXG, PDD = Shop("900001", "fxg"), Shop("900002", "pdd")
BASE, FULL = "erp.trade.outstock.simple.query", "erp.trade.list.query"
METHODS = {"900001": (BASE, FULL), "900002": (BASE,)}


def at(minutes: int) -> datetime:
    return T0 + timedelta(minutes=minutes)


def span(shop: Shop, start: int, end: int, *, method: str = BASE, sealed: bool = True) -> SealedSpan:
    return SealedSpan(shop.id, method, at(start), at(end), sealed)


def healing(interval, coverage, shops=(FXG, PDD), since=0):
    slices = plan(
        pipeline="trades",
        run="r",
        interval=Window(at(interval[0]), at(interval[1]), "upd_time"),
        shops=shops,
        shops_per_call=10,
        longest=timedelta(days=1),
        coverage=coverage,
        methods_of=METHODS,
        base_method=BASE,
        heal_since=at(since),
    )
    return [
        (piece.window.start, piece.window.end, [shop.id for shop in piece.shops])
        for piece in slices
        if piece.reason == "heal"
    ]


def both(shop, start, end, **kwargs):
    return [span(shop, start, end, method=method, **kwargs) for method in METHODS[shop.id]]


def test_sealed_time_before_the_interval_needs_no_healing():
    assert healing((60, 65), [*both(FXG, 0, 60), *both(PDD, 0, 60)]) == []


def test_outage_between_the_last_seal_and_now_is_read_again():
    coverage = [*both(FXG, 0, 20), *both(PDD, 0, 20)]
    assert healing((60, 65), coverage) == [(at(20), at(60), ["900001", "900002"])]


def test_window_left_open_is_read_again_for_its_shops_only():
    coverage = [*both(FXG, 0, 20), *both(FXG, 20, 25, sealed=False), *both(FXG, 25, 60), *both(PDD, 0, 60)]
    assert healing((60, 65), coverage) == [(at(20), at(25), ["900001"])]


def test_every_method_that_serves_a_shop_must_be_sealed():
    coverage = [span(FXG, 0, 60), span(FXG, 0, 30, method=FULL), *both(PDD, 0, 60)]
    assert healing((60, 65), coverage) == [(at(30), at(60), ["900001"])]


def test_shop_that_appeared_unnoticed_is_read_from_the_beginning():
    assert healing((60, 65), both(FXG, 0, 60), shops=(FXG, PDD)) == [(at(0), at(60), ["900002"])]


def test_outage_longer_than_the_healing_time_heals_all_of_that_time():
    found = healing((600, 605), [], shops=(PDD,), since=100)
    assert (found[0][0], found[-1][1]) == (at(100), at(600))
    assert all(one[1] == other[0] for one, other in pairwise(found))


def test_what_is_healed_is_cut_by_the_clock_so_that_it_has_the_same_name_again():
    assert [one[:2] for one in healing((150, 155), [], shops=(PDD,), since=50)] == [
        (at(50), at(60)),
        (at(60), at(120)),
        (at(120), at(150)),
    ]
    days = healing((3000, 3005), [], shops=(PDD,))
    midnights = [at(16 * 60), at(40 * 60)]  # T0 is eight in the morning in China
    assert [one[:2] for one in days] == [
        (at(0), midnights[0]),
        (midnights[0], midnights[1]),
        (midnights[1], at(3000)),
    ]


def test_method_that_never_served_a_shop_is_not_asked_to_heal():
    coverage = [span(FXG, 0, 60), *both(PDD, 0, 60)]
    assert healing((60, 65), coverage) == []


def test_healing_goes_back_only_so_far():
    assert healing((60, 65), both(FXG, 0, 10), shops=(FXG,), since=30) == [(at(30), at(60), ["900001"])]


def test_healing_is_bounded_and_takes_the_oldest_first():
    coverage = [one for minute in range(0, 1000, 10) for one in both(PDD, minute, minute + 5)]
    assert healing((8, 9), coverage[:1], shops=(PDD,)) == [(at(5), at(8), ["900002"])]
    found = healing((2000, 2005), coverage, shops=(PDD,))
    assert len(found) == 48
    assert found[0][0] == at(5)
    assert found[-1][1] < at(1000)
    assert found == sorted(found)


def test_at_most_ten_shops_go_into_one_call():
    shops = [Shop(str(number), "fxg") for number in range(23)]
    slices = plan(
        pipeline="p",
        run="r",
        interval=Window(T0, at(5), "upd_time"),
        shops=shops,
        shops_per_call=10,
        longest=timedelta(days=1),
    )
    assert [len(piece.shops) for piece in slices] == [10, 10, 3]
    assert {shop for piece in slices for shop in piece.shops} == set(shops)


def test_same_question_has_the_same_id_and_another_question_another():
    window = Window(T0, at(5), "upd_time")
    assert window_id("trades", BASE, window, ["1", "2"]) == window_id("trades", BASE, window, ["2", "1"])
    assert window_id("trades", BASE, window, ["1"]) != window_id("trades", BASE, window, ["2"])
    assert window_id("trades", BASE, window, ["1"]) != window_id("trades", FULL, window, ["1"])


@given(st.integers(1, 10_000), st.integers(1, 3000))
def test_pieces_cover_the_window_without_a_hole(minutes, longest):
    pieces = split(Window(T0, at(minutes), "upd_time"), timedelta(minutes=longest))
    assert pieces[0].start == T0
    assert pieces[-1].end == at(minutes)
    assert all(piece.end - piece.start <= timedelta(minutes=longest) for piece in pieces)
    assert all(one.end == other.start for one, other in pairwise(pieces))


@given(st.integers(0, 3000), st.integers(1, 3000), st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]))
def test_cells_cover_the_window_without_a_hole_and_meet_at_the_clock(since, minutes, hours):
    size = timedelta(hours=hours)
    pieces = cells(Window(at(since), at(since + minutes), "created"), size)
    assert (pieces[0].start, pieces[-1].end) == (at(since), at(since + minutes))
    for one, other in pairwise(pieces):
        assert one.end == other.start
        local = other.start.astimezone(timezone(timedelta(hours=8)))
        assert (local.hour % hours, local.minute, local.second) == (0, 0, 0)
        assert one.end - one.start <= size


@given(st.integers(2, 200_000))
def test_halves_of_a_window_share_an_edge_and_leave_nothing_out(seconds):
    window = Window(T0, T0 + timedelta(seconds=seconds), "upd_time")
    first, second = halves(window)
    assert (first.start, first.end, second.end) == (window.start, second.start, window.end)
    assert first.end.microsecond == 0
    assert max(first.end - first.start, second.end - second.start) < window.end - window.start


spans = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=12)


@given(spans, st.integers(0, 100), st.integers(1, 150))
def test_sealed_stretch_has_no_hole_and_reaches_the_moment(pieces, since, length):
    until = since + length
    covered = [(at(start), at(start + size)) for start, size in pieces]
    begin = sealed_since(at(since), at(until), covered)
    holes = gaps(at(since), at(until), covered)
    if begin is None:
        assert holes[-1][1] == at(until)
    else:
        assert gaps(begin, at(until), covered) == []
        assert begin == at(since) or holes[-1][1] == begin


@given(spans, st.integers(0, 100), st.integers(1, 150))
def test_gaps_and_coverage_together_are_everything_and_overlap_nowhere(pieces, since, length):
    until = since + length
    covered = [(at(start), at(start + size)) for start, size in pieces]
    holes = gaps(at(since), at(until), covered)
    for minute in range(since, until):
        middle = at(minute) + timedelta(seconds=30)
        inside = any(start <= middle <= end for start, end in covered)
        in_hole = any(start <= middle <= end for start, end in holes)
        assert inside != in_hole
