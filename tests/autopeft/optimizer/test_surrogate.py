import math

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal, norm

from autopeft.optimizer.surrogate import (
    GaussianProcess,
    Growth,
    Hyperparameters,
    Samples,
    inverted,
    matern,
    negative_log_posterior,
    squared_distances,
)


def data(count=20, dimension=4, seed=0):
    generator = np.random.default_rng(seed)
    features = generator.random((count, dimension))
    values = np.sin(4 * features[:, 0]) + 0.5 * features[:, 1] + 0.05 * generator.standard_normal(count)
    return features, values


def theta(dimension=4, seed=1):
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.normal(0, 0.5, dimension), [-3.0, 0.2, 0.7, -0.4]])


def naive_kernel(left, right, lengthscales):
    kernel = np.empty((len(left), len(right)))
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            r = math.sqrt(sum(((one - other) / lengthscales) ** 2))
            kernel[i, j] = (1 + math.sqrt(5) * r + 5 * r**2 / 3) * math.exp(-math.sqrt(5) * r)
    return kernel


def naive_prior(features, samples, theta, growing):
    """Means and deviations at ``features`` before anything is seen."""
    mean, rate, rise = theta[-3:] * [1, growing, growing]
    scale = math.sqrt(np.mean([math.exp(2 * rate * x) for x in samples[:, 0]]))
    usual = np.mean([math.exp(rate * x) / scale for x in samples[:, 0]])
    deviations = np.array([math.exp(rate * min(1, max(0, x))) / scale for x in features[:, 0]])
    return mean + rise * (deviations - usual), deviations


def naive_posterior(features, values, at, theta, growing=False):
    """Textbook formulas with an explicit inverse, for standardised values."""
    lengthscales, noise = np.exp(theta[:-4]), math.exp(theta[-4])
    (means, deviations), (means_at, deviations_at) = (
        naive_prior(points, features, theta, growing) for points in (features, at)
    )
    kernel = naive_kernel(features, features, lengthscales) * np.outer(deviations, deviations)
    inverse = np.linalg.inv(kernel + noise * np.eye(len(features)))
    cross = naive_kernel(at, features, lengthscales) * np.outer(deviations_at, deviations)
    mean = means_at + cross @ inverse @ (values - means)
    return mean, np.sqrt(deviations_at**2 - np.diag(cross @ inverse @ cross.T))


def test_the_kernel_is_the_textbooks():
    features, _ = data()
    lengthscales = np.array([0.3, 1.0, 2.0, 0.5])
    scaled = features / lengthscales
    assert matern(squared_distances(scaled, scaled)) == pytest.approx(naive_kernel(features, features, lengthscales))


@pytest.mark.parametrize("dimension", [1, 4, 19])
@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("growing", [False, True])
def test_the_gradient_is_that_of_finite_differences(count, dimension, growing):
    features, _ = data(count, max(dimension, 2))
    features, values = features[:, :dimension], np.random.default_rng(2).standard_normal(count)

    samples = Samples.single(features, values, growing=growing)

    def loss(at):
        return negative_log_posterior(at, samples)[0]

    def gradient(at):
        return negative_log_posterior(at, samples)[1]

    at = theta(dimension)
    assert check_grad(loss, gradient, at, epsilon=1e-6) < 1e-4 * (1 + np.linalg.norm(gradient(at)))


@pytest.mark.parametrize("growing", [False, True])
def test_the_loss_is_likelihood_times_prior(growing):
    features, values = data()

    def log_posterior(at):
        means, deviations = naive_prior(features, features, at, growing)
        covariance = naive_kernel(features, features, np.exp(at[:4])) * np.outer(deviations, deviations)
        likelihood = multivariate_normal(means, covariance + math.exp(at[4]) * np.eye(20)).logpdf(values)
        usual, decisive = norm(0.5 * math.log(4), math.sqrt(3)).logpdf(at[:3]).sum(), norm(-0.5, 0.5).logpdf(at[3])
        prior = usual + decisive + norm(-5, 1).logpdf(at[4]) + norm(0, 0.3).logpdf(at[5])
        return likelihood + prior + norm(0, 2).logpdf(at[6]) + norm(0, 0.3).logpdf(at[7])

    one, other = theta(seed=1), theta(seed=2)
    other[-2:] += 0.5
    samples = Samples.single(features, values, decisive=1, growing=growing)
    ours = negative_log_posterior(one, samples)[0] - negative_log_posterior(other, samples)[0]
    assert ours == pytest.approx(log_posterior(other) - log_posterior(one))


@pytest.mark.parametrize("growing", [False, True])
def test_the_posterior_is_that_of_a_naive_computation(growing):
    features, values = data()
    at = np.random.default_rng(3).random((7, 4))
    at[0, 0] = 1e6  # far beyond all that counts: a user's exact objective may be worse than any reference
    samples = Samples.single(features, 10 + 2 * values, growing=growing)
    process = GaussianProcess(samples, Hyperparameters.from_vector(theta(), samples), 10.0, 2.0)
    mean, deviation = process.posterior(at)
    expected_mean, expected_deviation = naive_posterior(features, values, at, theta(), growing)
    assert mean == pytest.approx(10 + 2 * expected_mean)
    assert deviation == pytest.approx(2 * expected_deviation)
    assert np.sqrt(np.diag(process.covariance(at))) == pytest.approx(deviation)


def test_the_posterior_is_botorchs():
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("botorch.models")
    kernels = pytest.importorskip("gpytorch.kernels")
    features, values = data()
    values = (values - values.mean()) / values.std()
    at = np.random.default_rng(3).random((7, 4))
    ours = GaussianProcess.fit(Samples.single(features, values))
    model = models.SingleTaskGP(
        torch.tensor(features),
        torch.tensor(values)[:, None],
        covar_module=kernels.MaternKernel(nu=2.5, ard_num_dims=4),
        outcome_transform=None,
    ).double()
    model.covar_module.lengthscale = torch.tensor(ours.hyperparameters.lengthscales)
    model.likelihood.noise = torch.tensor([ours.hyperparameters.noise])
    model.mean_module.constant.data = torch.tensor(ours.hyperparameters.mean, dtype=torch.float64)
    with torch.no_grad():
        theirs = model.eval().posterior(torch.tensor(at))
    mean, deviation = ours.posterior(at)
    assert mean == pytest.approx(theirs.mean[:, 0].numpy(), abs=1e-6)
    assert deviation == pytest.approx(theirs.variance[:, 0].sqrt().numpy(), abs=1e-6)


def test_a_fit_finds_what_matters():
    features, values = data(60, 6)
    process = GaussianProcess.fit(Samples.single(features, values))
    lengthscales = process.hyperparameters.lengthscales
    assert lengthscales[0] < lengthscales[1] < lengthscales[2:].min()
    test_features, test_values = data(200, 6, seed=9)
    mean, _ = process.posterior(test_features)
    assert np.sqrt(np.mean((mean - test_values) ** 2)) < 0.1


@pytest.mark.parametrize("values", [[0.7], [0.7] * 5, [0.1 + 0.2, 0.3, 0.3], [0.0] * 4])
def test_values_without_spread_give_a_flat_mean_and_an_honest_doubt(values):
    features = np.random.default_rng(0).random((len(values), 3))
    mean, deviation = GaussianProcess.fit(Samples.single(features, np.array(values))).posterior(
        np.random.default_rng(1).random((5, 3))
    )
    assert mean == pytest.approx(np.full(5, values[-1]))
    assert deviation.min() > 1e-3


def test_equal_features_with_different_values_are_noise():
    features = np.repeat(np.random.default_rng(0).random((10, 3)), 2, axis=0)
    process = GaussianProcess.fit(Samples.single(features, np.tile([0.0, 1.0], 10)))
    mean, _ = process.posterior(features)
    assert mean == pytest.approx(np.full(20, 0.5), abs=0.05)


def test_believing_keeps_the_mean_and_removes_doubt():
    features, values = data()
    process = GaussianProcess.fit(Samples.single(features, values))
    at = np.random.default_rng(3).random((3, 4))
    believed = process.believing(at)
    elsewhere = np.random.default_rng(4).random((5, 4))
    assert believed.posterior(elsewhere)[0] == pytest.approx(process.posterior(elsewhere)[0], abs=1e-6)
    assert (believed.posterior(at)[1] < process.posterior(at)[1]).all()
    assert process.believing(at[:0]) is process


def repeats(count=12, dimension=3, seed=0):
    """Features, and one to four values at each."""
    generator = np.random.default_rng(seed)
    features = generator.random((count, dimension))
    groups = [list(row.sum() + 0.1 * generator.standard_normal(1 + i % 4)) for i, row in enumerate(features)]
    return features, groups


def test_grouped_repeats_have_the_likelihood_of_all_their_rows():
    features, groups = repeats()
    flat = Samples.single(np.repeat(features, [len(g) for g in groups], axis=0), np.concatenate(groups))
    counts = np.array([len(group) for group in groups])
    means = np.array([np.mean(group) for group in groups])
    squares = sum(np.sum((np.array(g) - m) ** 2) for g, m in zip(groups, means, strict=True))
    grouped = Samples(features, means, 1 / counts, squares, int((counts - 1).sum()))
    one, other = theta(3, seed=1), theta(3, seed=2)
    difference = [negative_log_posterior(one, s)[0] - negative_log_posterior(other, s)[0] for s in (flat, grouped)]
    assert difference[0] == pytest.approx(difference[1])
    gradients = [negative_log_posterior(one, s)[1] for s in (flat, grouped)]
    assert gradients[0] == pytest.approx(gradients[1])


def test_grouped_repeats_have_the_posterior_of_all_their_rows():
    features, groups = repeats()
    counts = [len(group) for group in groups]
    flat = Samples.single(np.repeat(features, counts, axis=0), np.concatenate(groups))
    grouped = Samples(features, np.array([np.mean(g) for g in groups]), 1 / np.array(counts))
    at, hyperparameters = np.random.default_rng(5).random((6, 3)), Hyperparameters.from_vector(theta(3), flat)
    mean, deviation = GaussianProcess(flat, hyperparameters, 1.0, 2.0).posterior(at)
    assert GaussianProcess(grouped, hyperparameters, 1.0, 2.0).posterior(at)[0] == pytest.approx(mean)
    assert GaussianProcess(grouped, hyperparameters, 1.0, 2.0).posterior(at)[1] == pytest.approx(deviation)


def test_a_point_whose_repeats_scatter_more_is_trusted_less():
    calm, wild = [0.50, 0.51, 0.49], [0.2, 0.8, 0.5]
    samples = Samples.grouped(np.eye(3), [calm, wild, [0.4]])
    assert samples.factors[0] < 1 / 3 < samples.factors[1]
    assert samples.factors[2] == 1
    assert samples.degrees == 4


def test_without_repeats_grouping_changes_nothing():
    features, values = data()
    grouped = Samples.grouped(features, [[value] for value in values])
    assert grouped.values == pytest.approx(values)
    assert (grouped.factors == 1).all()
    assert (grouped.squares, grouped.degrees) == (0, 0)


def test_draws_have_the_posteriors_moments():
    features, values = data()
    process = GaussianProcess.fit(Samples.single(features, values))
    at = np.vstack([features[:2], features[:1], np.random.default_rng(3).random((2, 4))])
    draws = process.draw(at, 20000, np.random.default_rng(0))
    mean, deviation = process.posterior(at)
    assert draws.mean(axis=0) == pytest.approx(mean, abs=0.01)
    assert draws.std(axis=0) == pytest.approx(deviation, rel=0.05)
    assert draws[:, 0] == pytest.approx(draws[:, 2], abs=1e-6)


def test_many_rows_are_fitted_on_some_and_conditioned_on_all():
    features, values = data(400)
    process = GaussianProcess.fit(Samples.single(features, values))
    assert len(process.samples.values) == 400
    mean, _ = process.posterior(features)
    assert np.sqrt(np.mean((mean - values) ** 2)) < 0.08


def test_where_nothing_was_seen_nothing_better_than_the_usual_is_expected():
    generator = np.random.default_rng(0)
    spread_out, close = generator.random((3, 16)), generator.random(16) + 0.05 * generator.random((17, 16))
    values = np.append([1.0, 1.1, 0.9], 0.02 * generator.random(17))
    process = GaussianProcess.fit(Samples.single(np.vstack([spread_out, close]), values))
    mean, _ = process.posterior(np.full((1, 16), 1e3))
    assert abs(mean[0] - values.mean()) < 0.5 * values.std()


def test_a_decisive_feature_is_not_taken_for_irrelevant():
    generator = np.random.default_rng(0)
    features = generator.random((12, 20))
    features[:, -1] = np.where(np.arange(12) % 2 == 0, 0.02, 0.98)  # both ends alone were seen
    values = features[:, 0]
    middle = np.full((1, 20), 0.5)
    doubts = {
        count: GaussianProcess.fit(Samples.single(features, values, decisive=count)).posterior(middle)[1][0]
        for count in (0, 1)
    }
    assert doubts[1] > 1.3 * doubts[0]


def test_plans_that_differ_little_where_they_are_cheap_are_doubted_little_there():
    generator = np.random.default_rng(0)
    features = generator.random((30, 8))
    # the first feature is the cost: effects are in proportion to a power of it
    values = 0.1 + np.exp(3 * (features[:, 0] - 1)) * (features[:, 1] - features[:, 2] + 0.5 * features[:, 3])
    ends = np.tile(generator.random((200, 8)), (2, 1))
    ends[:200, 0], ends[200:, 0] = 0.05, 0.95
    truth = 0.1 + np.exp(3 * (ends[:, 0] - 1)) * (ends[:, 1] - ends[:, 2] + 0.5 * ends[:, 3])
    ratios, scores = {}, {}
    for growing in (False, True):
        mean, deviation = GaussianProcess.fit(Samples.single(features, values, growing=growing)).posterior(ends)
        ratios[growing] = deviation[200:].mean() / deviation[:200].mean()
        scores[growing] = norm(mean, deviation).logpdf(truth).mean()
    assert ratios[False] < 2 < 5 < ratios[True]
    assert scores[True] > scores[False] + 0.5


def test_the_deviation_grows_by_its_rate_and_is_one_on_the_samples_average():
    features, _ = data(40)
    growth = Growth.over(2.0, features)
    assert np.mean(growth.at(features) ** 2) == pytest.approx(1)
    assert np.mean(growth.at(features)) == pytest.approx(growth.usual)
    low, high, beyond = growth.at(np.array([[0.0], [1.0], [50.0]]))
    assert high / low == pytest.approx(math.exp(2))
    assert beyond == high


def test_the_inverse_is_the_inverse():
    matrix = np.cov(np.random.default_rng(0).standard_normal((6, 50)))
    inverse, half_log_determinant = inverted(matrix)
    assert inverse == pytest.approx(np.linalg.inv(matrix))
    assert half_log_determinant == pytest.approx(0.5 * np.linalg.slogdet(matrix)[1])
