"""Judges from outside whether a reply fits its conversation: a matcher that learned from the archive's other ones.

A base model that judges replies of its own likes them better than the owner's. The matcher has never seen generated
text: it learns from the training split which words answer which, and knows no language model.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_union
from sklearn.preprocessing import normalize

from doppel.transcript import Turn

MIN_PAIRS = 200
"""Replies to learn from; fewer teach a matcher nothing."""
MAX_PAIRS = 8_000
_DIMENSIONS = 128
_RIDGE = 1.0
_CONTEXT_TURNS = 4
"""Of a conversation that a reply may refer to."""

Array = NDArray[np.float64]


class ReplyMatcher:
    """Scores how well replies fit contexts.

    Both are reduced to some dimensions (latent semantic analysis), a ridge regression predicts the reply's from the
    context's, and a logistic regression weighs how near the prediction is and how many words both share.

    Args:
        contexts: at least `MIN_PAIRS`.
        replies: to them.
        seed: of the mismatched pairs that it learns from.
    """

    def __init__(self, contexts: Sequence[str], replies: Sequence[str], seed: int = 0) -> None:
        self._vectorizer = _vectorizer()
        grams = self._vectorizer.fit_transform([*contexts, *replies])
        dimensions = min(_DIMENSIONS, grams.shape[1] - 1)
        self._reduction = TruncatedSVD(dimensions, random_state=0).fit(grams)
        asked, answered = self._encode(contexts), self._encode(replies)
        half = np.arange(len(contexts)) % 2 == 0
        self._prediction = _ridge(asked[1][half], answered[1][half])
        # The other half, which the prediction was not fitted on, tells how much to trust it.
        rest = np.flatnonzero(~half)
        wrong = np.random.default_rng(seed).permutation(rest)
        right_pairs, wrong_pairs = (self._compare(_rows(asked, rest), _rows(answered, rows)) for rows in (rest, wrong))
        self._weights = LogisticRegression(C=10.0).fit(
            np.concatenate([right_pairs, wrong_pairs]), [1] * len(rest) + [0] * len(rest)
        )
        self._prediction = _ridge(asked[1], answered[1])

    def scores(self, contexts: Sequence[str], replies: Sequence[str]) -> Array:
        """(N,) log-odds that each reply is to its context."""
        features = self._compare(self._encode(contexts), self._encode(replies))
        return np.asarray(self._weights.decision_function(features), dtype=np.float64)

    def _encode(self, texts: Sequence[str]) -> tuple[csr_matrix, Array]:
        """n-grams, and the same reduced to vectors of length 1."""
        grams = self._vectorizer.transform(texts)
        return normalize(grams), normalize(self._reduction.transform(grams))

    def _compare(self, asked: tuple[csr_matrix, Array], answered: tuple[csr_matrix, Array]) -> Array:
        """(N, 2) how near the predicted reply is, and how much of the words is shared."""
        predicted = normalize(asked[1] @ self._prediction)
        shared = np.asarray(asked[0].multiply(answered[0]).sum(1)).ravel()
        return np.stack([(predicted * answered[1]).sum(1), shared], axis=1)


def context_text(context: Sequence[Turn]) -> str:
    """What of a conversation the matcher reads."""
    return "\n".join(bubble for turn in context[-_CONTEXT_TURNS:] for bubble in turn.bubbles)


def _vectorizer() -> FeatureUnion:
    return make_union(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=2, max_features=40_000),
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=20_000),
    )


def _rows(encoded: tuple[csr_matrix, Array], rows: NDArray[np.intp]) -> tuple[csr_matrix, Array]:
    return encoded[0][rows], encoded[1][rows]


def _ridge(inputs: Array, targets: Array) -> Array:
    """(D, D) the linear map from inputs to targets with the least squares and an L2 penalty."""
    gram = inputs.T @ inputs + _RIDGE * np.eye(inputs.shape[1])
    return np.asarray(np.linalg.solve(gram, inputs.T @ targets), dtype=np.float64)
