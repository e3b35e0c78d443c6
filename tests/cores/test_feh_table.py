"""The tabulated network: exact at the nodes, close between them, its slopes those of its values, the same in JAX."""

import numpy as np
import pytest

from xptools.cores import feh_table
from xptools.cores.feh_table import tabulate

LOW, HIGH = np.array([-2.0, -1.5, -5.0]), np.array([3.0, 2.5, 2.6])


def wavy(x):
    return np.stack([np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2], np.tanh(x[:, 0] - 0.3 * x[:, 2]) - 2 * x[:, 1]], -1)


@pytest.fixture(scope="module")
def table():
    return tabulate(wavy, LOW, HIGH)


def inside(n, seed=0):
    return np.random.default_rng(seed).uniform(LOW, HIGH, (n, 3))


def test_values_are_the_function_s(table):
    x = inside(3000)
    assert np.abs(table(x)[0] - wavy(x)).max() < 2e-4
    nodes = LOW + table.step * np.random.default_rng(1).integers(2, 30, (50, 3))
    assert np.abs(table(nodes)[0] - wavy(nodes)).max() < 1e-6


def test_the_error_falls_with_the_fourth_power_of_the_step():
    x = inside(3000)
    coarse, fine = (np.abs(tabulate(wavy, LOW, HIGH, n)(x)[0] - wavy(x)).max() for n in (17, 33))
    assert coarse / fine > 10


def test_a_linear_function_is_exact(table):
    x = inside(500)
    linear = tabulate(lambda p: (p @ [[1.0], [2.0], [-3.0]]) + 4, LOW, HIGH, 9)
    value, slope = linear(x)
    # the filter's end conditions bend what is straight, by a factor of 3.7 less per node: 7 nodes are outside
    assert np.abs(value - (x @ [[1.0], [2.0], [-3.0]] + 4)).max() < 3e-3
    assert np.abs(slope[:, :, 0].T - [1, 2, -3]).max() < 2e-2


def test_slopes_are_those_of_the_values(table):
    x, h = inside(300) * 0.98, 1e-5
    _, slope = table(x)
    for k in range(3):
        d = np.eye(3)[k] * h
        assert np.abs((table(x + d)[0] - table(x - d)[0]) / (2 * h) - slope[k]).max() < 1e-5


def test_beyond_the_box_the_edge_holds(table):
    out, edge = np.array([[9.0, 0.0, 0.0], [0.0, -9.0, 0.0]]), np.array([[3.0, 0.0, 0.0], [0.0, -1.5, 0.0]])
    assert np.array_equal(table(out)[0], table(edge)[0])


def test_jax_and_the_compiled_kernel_agree(table):
    from xptools.cores import _fehkernels as kernels
    from xptools.cores._jax import configure

    jnp = configure().numpy
    x = inside(40)
    value, slope = table(x)
    there = table(jnp.asarray(x), jnp)
    assert np.abs(there[0] - value).max() < 1e-12 and np.abs(there[1] - slope).max() < 1e-12
    low, high, per_step = (np.asarray(a, np.float32) for a in (table.low, table.high, 1 / table.step))
    grid = kernels.Grid(table.padded.ravel(), table.padded.shape[0], low, high, per_step)
    out, alone, w = np.zeros((5, feh_table.WIDTH), np.float32), np.zeros(64, np.float32), np.zeros(24, np.float32)
    for k in range(len(x)):
        kernels.look_up(grid, x[k].astype(np.float32), out.ravel(), w)
        kernels.look_up_value(grid, x[k].astype(np.float32), alone, w)
        assert np.abs(out[4, :2] - value[k]).max() < 2e-5 and np.abs(alone - out[4]).max() < 1e-6
        assert np.abs(out[:3, :2] - slope[:, k]).max() < 2e-4
