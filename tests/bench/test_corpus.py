from __future__ import annotations

from bench.corpus import SMALL_EXPERIMENT, WRITTEN_EXPERIMENT, run_id, seed_statements, seeded


def test_ids_are_known_without_asking_the_database() -> None:
    # SELECT md5('2/' || 1)
    assert run_id(2, 1) == "dabb39d7aac2a6cb21937d4d06402132"


def test_written_runs_are_apart_from_those_that_are_read() -> None:
    corpus = seeded(written=4, small=6, with_history=2)
    assert corpus.runs == [run_id(WRITTEN_EXPERIMENT, number) for number in (1, 2, 3, 4)]
    assert set(corpus.with_history) < set(corpus.readable)
    assert not set(corpus.runs) & set(corpus.readable)
    assert corpus.small_experiment == str(SMALL_EXPERIMENT)


def test_the_seed_holds_as_many_runs_as_the_corpus_names() -> None:
    seed = "\n".join(seed_statements(written=4, small=6, large=8, with_history=2))
    assert all(f"generate_series(1::bigint, {count})" in seed for count in (4, 6, 8))
