"""The order in which memories go back to their places: lawful after every step."""

from hypothesis import given
from hypothesis import strategies as st

from app.history.ordering import lawful_order

PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))


def in_the_way(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


@st.composite
def lawful(draw: st.DrawFn) -> list[str]:
    paths: list[str] = []
    for path in draw(st.lists(PATHS, max_size=8)):
        if not any(in_the_way(path, other) for other in paths):
            paths.append(path)
    return paths


@given(before=lawful(), after=lawful(), data=st.data())
def test_every_step_is_lawful_and_the_end_is_reached(before: list[str], after: list[str], data: st.DataObject) -> None:
    number = min(len(before), len(after))
    olds, news = data.draw(st.permutations(before))[:number], data.draw(st.permutations(after))[:number]
    places = {f"mem_{index}": path for index, path in enumerate(olds)}
    moves = {
        memory_id: (places[memory_id], new)
        for memory_id, new in zip(places, news, strict=True)
        if places[memory_id] != new
    }
    order, aside = lawful_order(places, moves)
    assert sorted([*order, *aside]) == sorted(moves)
    now = {memory_id: path for memory_id, path in places.items() if memory_id not in aside}

    def move(memory_id: str) -> None:
        now.pop(memory_id, None)
        assert not any(in_the_way(moves[memory_id][1], path) for path in now.values())
        now[memory_id] = moves[memory_id][1]

    for memory_id in [*order, *aside]:
        move(memory_id)
    assert now == {**places, **{memory_id: new for memory_id, (_, new) in moves.items()}}


def test_only_as_many_are_taken_away_as_there_are_circles() -> None:
    ring = {f"mem_{n}": f"/{n}" for n in range(1_000)}
    moves = {f"mem_{n}": (f"/{n}", f"/{(n + 1) % 1_000}") for n in range(1_000)}
    order, aside = lawful_order(ring, moves)
    assert (len(order), len(aside)) == (999, 1)
    chain = {memory_id: (old, new) for memory_id, (old, new) in moves.items() if memory_id != "mem_999"}
    order, aside = lawful_order({key: path for key, path in ring.items() if key != "mem_999"}, chain)
    assert (len(order), aside) == (999, [])
