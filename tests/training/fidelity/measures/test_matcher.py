"""A judge that never saw generated text tells which reply is to which message."""

import random

import numpy as np

from doppel.transcript import Turn
from training.fidelity.measures.matcher import ReplyMatcher, context_text

TOPICS = {
    "where shall we eat": "the pizza place again, please",
    "did you see the match": "what a goal in the last minute",
    "how was the exam": "hard, I failed the maths part",
    "is the train late": "it left the station on time",
}


def pairs(count: int, seed: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    chosen = [rng.choice(list(TOPICS.items())) for _ in range(count)]
    fillers = ("hm", "so", "well", "tell me", "hey")
    return [f"{rng.choice(fillers)} {asked}" for asked, _ in chosen], [
        f"{said} {rng.choice(fillers)}" for _, said in chosen
    ]


def test_the_right_reply_scores_higher_than_another_topics() -> None:
    matcher = ReplyMatcher(*pairs(400, 0))
    contexts, replies = pairs(60, 1)
    right = matcher.scores(contexts, replies)
    topics = [next(said for asked, said in TOPICS.items() if asked in context) for context in contexts]
    others = [next(said for said in TOPICS.values() if said != topic) for topic in topics]
    assert float(np.mean(right > matcher.scores(contexts, others))) > 0.95


def test_it_reads_the_end_of_a_conversation() -> None:
    turns = [Turn("Ramito", (f"turn {number}",)) for number in range(10)]
    assert context_text(turns) == "turn 6\nturn 7\nturn 8\nturn 9"
