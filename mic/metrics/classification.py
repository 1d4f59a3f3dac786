"""Score embeddings against labels at every width: classes of texts, pairs that match, clusters.

Every score is times 100. scikit-learn is imported where it is used: importing it takes a second,
which a command that scores nothing need not wait for.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mic.nested import check_dims, paired_cosines, prefix, unit

SEED = 42  # the paper's and mteb's


class LabelledPairs(NamedTuple):
    """Embeddings of both sides of pairs, and 1 where they match, 0 where they do not."""

    left: Float[Tensor, "pairs dim"]
    right: Float[Tensor, "pairs dim"]
    labels: Sequence[int]


def nested_classification(
    train: Float[Tensor, "train dim"],
    train_labels: Sequence[int],
    test: Float[Tensor, "test dim"],
    test_labels: Sequence[int],
    dims: Sequence[int],
) -> dict[str, dict[int, float]]:
    """Accuracy and macro-F1 of the labels of `nested_answers`.

    Macro-F1 is the mean over all classes among the test rows' labels or answers. A test row whose
    label is not in the training rows is answered wrongly, and its class has F1 0.

    Raises InputError for widths that do not increase or exceed D.
    """
    return answer_scores(test_labels, nested_answers(train, train_labels, test, dims))


def nested_answers(
    train: Float[Tensor, "train dim"],
    train_labels: Sequence[int],
    test: Float[Tensor, "test dim"],
    dims: Sequence[int],
) -> dict[int, Int[Tensor, " test"]]:
    """The test rows' labels by a logistic regression on the embeddings at every width.

    The protocol of MIPIC (arXiv 2604.24374): scikit-learn's LogisticRegression, its L2 penalty of
    weight 1 included, on embeddings that are cut but *not* normalised, so that their scale counts.
    It stops after 200 iterations, converged or not, without scikit-learn's warning.

    Raises InputError for widths that do not increase or exceed D.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    answers = {}
    for dim in check_dims(dims, train.shape[1]):
        classifier = LogisticRegression(max_iter=200, random_state=SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(prefix(train, dim).numpy(), train_labels)
        answers[dim] = torch.from_numpy(classifier.predict(prefix(test, dim).numpy())).long()
    return answers


def answer_scores(
    truth: Sequence[int], answers: Mapping[int, Int[Tensor, " test"]]
) -> dict[str, dict[int, float]]:
    """Accuracy and macro-F1 of labels answered at every width."""
    from sklearn.metrics import accuracy_score, f1_score

    scores: dict[str, dict[int, float]] = {"accuracy": {}, "macro_f1": {}}
    for dim, labels in answers.items():
        predicted = labels.numpy()
        scores["accuracy"][dim] = 100 * float(accuracy_score(truth, predicted))
        scores["macro_f1"][dim] = 100 * float(f1_score(truth, predicted, average="macro"))
    return scores


def nested_average_precision(test: LabelledPairs, dims: Sequence[int]) -> dict[int, float]:
    """Average precision of the cosine as a sign of a match at every width.

    The mean over matches of the precision among the pairs of at least their cosine. Raises
    InputError for widths that do not increase or exceed D.
    """
    from sklearn.metrics import average_precision_score

    dims = check_dims(dims, test.left.shape[1])
    return {
        dim: 100 * float(average_precision_score(test.labels, cosine.double().numpy()))
        for dim, cosine in paired_cosines(test.left, test.right, dims).items()
    }


def nested_pair_accuracy(
    test: LabelledPairs, tune: LabelledPairs, dims: Sequence[int]
) -> dict[int, float]:
    """Accuracy of calling pairs a match by their cosine at every width.

    The threshold is the best one for `tune`, each width's own; `test` never moves it. (The paper
    tunes it on the test pairs themselves, which can only score higher: pass them twice for that.)
    Raises InputError for widths that do not increase or exceed D.
    """
    dims = check_dims(dims, test.left.shape[1])
    tuned = paired_cosines(tune.left, tune.right, dims)
    labels = torch.tensor(test.labels, dtype=torch.bool)
    scores = {}
    for dim, cosine in paired_cosines(test.left, test.right, dims).items():
        matches = cosine.double() >= best_threshold(tuned[dim], tune.labels)
        scores[dim] = 100 * float((matches == labels).double().mean())
    return scores


def best_threshold(cosines: Float[Tensor, " pairs"], labels: Sequence[int]) -> float:
    """The threshold from which on pairs are best called a match: the highest of the best.

    Halfway between two neighbouring cosines; infinite where all or none is best.

    >>> best_threshold(torch.tensor([0.25, 0.875, 0.5, 0.125]), [0, 1, 1, 0])
    0.375
    """
    ordered, order = cosines.double().sort(descending=True)
    match = torch.tensor(labels, dtype=torch.double)[order]
    # right answers when the first k pairs are called matches, for k = 0, ..., n
    right = pad(match.cumsum(0), (1, 0)) + (1 - match).sum() - pad((1 - match).cumsum(0), (1, 0))
    bounds = pad(pad(ordered, (1, 0), value=torch.inf), (0, 1), value=-torch.inf)
    right[bounds[:-1] == bounds[1:]] = -1  # no threshold parts equal cosines
    return float((bounds[:-1] + bounds[1:])[right.argmax()] / 2)


def nested_v_measure(
    embeddings: Float[Tensor, "texts dim"], labels: Sequence[int], dims: Sequence[int]
) -> dict[int, float]:
    """V-measure of k-means' groups against the labels at every width.

    As many groups as labels, by scikit-learn's MiniBatchKMeans in batches of 512 as mteb runs it,
    on truncated rows of length 1; all rows once from one seeded start, where mteb averages over
    samples of them. Where k-means finds fewer groups than labels, those are scored, and
    scikit-learn's warning is not shown. Raises InputError for widths that do not increase or
    exceed D.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import v_measure_score

    scores = {}
    for dim in check_dims(dims, embeddings.shape[1]):
        groups = MiniBatchKMeans(len(set(labels)), batch_size=512, n_init="auto", random_state=SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            assigned = groups.fit_predict(unit(prefix(embeddings, dim)).numpy())
        scores[dim] = 100 * float(v_measure_score(labels, assigned))
    return scores
