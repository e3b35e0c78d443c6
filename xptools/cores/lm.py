"""Levenberg-Marquardt and BFGS for many stars at once, in JAX: reference of the compiled kernels, and the GPU's way.

Both minimise chi2(p) = |W (exp(ln y(p) - ln y0 - spread p_3) - u)|^2 + p_3^2 for p (N, 4): three scaled labels inside a
box, and the shift that the parallax leaves; W = L^-1, L L^T the covariance in units of the reference model y0. All
stars of a batch take steps together until the last has arrived; one that has arrived stays where it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

TOLERANCE = 1e-5  # fall of chi2 that is no longer worth a step
MOST_STEPS, MOST_TRIALS = 60, 200
GRADIENT = 1e-4  # BFGS ends where the gradient of chi2 / 2 in scaled, unbounded labels is smaller than this


class Whitened(NamedTuple):
    """Stars ready for fitting: W (N, n, n), relative flux u (N, n), ln of the reference model (N, n), spread (N,)."""

    W: Any
    u: Any
    ln_reference: Any
    spread: Any


def whiten(jnp, linalg, flux, gain, cov, floor, ln_reference, spread) -> Whitened:
    """From flux at 10 pc (N, n), gain, covariance before the gain (N, n, n), the model's relative one (N, n, n).

    A sample that is not finite gets no weight.
    """
    scale = jnp.exp(-ln_reference)
    u = flux * scale
    a = cov * (gain * scale)[:, :, None] * (gain * scale)[:, None, :] + floor
    n = u.shape[1]
    there = jnp.isfinite(u) & jnp.isfinite(a[:, jnp.arange(n), jnp.arange(n)])
    both = there[:, :, None] & there[:, None, :]
    a = jnp.where(both, a, jnp.eye(n))
    factor = jnp.linalg.cholesky(a)
    W = linalg.solve_triangular(factor, jnp.broadcast_to(jnp.eye(n), a.shape), lower=True)
    W = jnp.where(both, W, 0.0)
    return Whitened(W, jnp.where(there, u, 1.0), ln_reference, spread)


def residuals(jnp, ln_flux, p, star: Whitened):
    """Whitened residuals (N, n) at p (N, 4), the prior's own left out."""
    e = jnp.exp(jnp.clip(ln_flux(p[:, :3]) - star.ln_reference - star.spread[:, None] * p[:, 3:], -30, 30))
    return jnp.einsum("nij,nj->ni", star.W, e - star.u)


def products(jax, ln_flux, p, star: Whitened):
    """chi2 (N,), half its gradient (N, 4), curvature J^T J + prior (N, 4, 4)."""
    jnp = jax.numpy
    r, push = jax.linearize(lambda q: residuals(jnp, ln_flux, q, star), p)
    J = jax.vmap(push)(jnp.broadcast_to(jnp.eye(4, dtype=p.dtype)[:, None], (4, *p.shape)))  # (4, N, n)
    prior = jnp.zeros((4, 4), p.dtype).at[3, 3].set(1.0)
    g = jnp.einsum("kni,ni->nk", J, r) + p * jnp.array([0, 0, 0, 1], p.dtype)
    return (r * r).sum(-1) + p[:, 3] ** 2, g, jnp.einsum("kni,lni->nkl", J, J) + prior


def levenberg_marquardt(jax, ln_flux, p, star: Whitened, box, steps: int = MOST_STEPS):
    """(p, curvature, chi2, converged) from the start p (N, 4): damped Gauss-Newton, stuck labels left at the box."""
    jnp = jax.numpy
    inf = jnp.inf
    low, high = jnp.concatenate([box, jnp.array([[-inf], [inf]])], 1).astype(p.dtype)
    p = jnp.clip(p, low, high)

    def step(state):
        k, p, chi2, g, H, damping, done = state
        free = ~(((p <= low) & (g > 0)) | ((p >= high) & (g < 0)))
        both = free[:, :, None] & free[:, None, :]
        diagonal = jnp.where(free, H[:, jnp.arange(4), jnp.arange(4)], 1.0)
        A = jnp.where(both, H, 0.0) + (diagonal * jnp.where(free, damping[:, None], 1.0))[:, :, None] * jnp.eye(4)
        d = jnp.linalg.solve(A, -jnp.where(free, g, 0.0)[..., None])[..., 0]
        fall = -2 * (d * g).sum(-1) - jnp.einsum("nk,nkl,nl->n", d, H, d)
        done = done | ((fall < TOLERANCE) & (damping < 0.1))
        trial = jnp.clip(p + d, low, high)
        new, new_g, new_H = products(jax, ln_flux, trial, star)
        better = (new < chi2) & ~done
        p, chi2 = jnp.where(better[:, None], trial, p), jnp.where(better, new, chi2)
        g, H = jnp.where(better[:, None], new_g, g), jnp.where(better[:, None, None], new_H, H)
        damping = jnp.where(better, jnp.maximum(damping * 0.1, 1e-8), jnp.where(done, damping, damping * 10))
        return k + 1, p, chi2, g, H, damping, done

    def going(state):
        return (state[0] < steps) & ~state[-1].all()

    chi2, g, H = products(jax, ln_flux, p, star)
    n = p.shape[0]
    begin = (0, p, chi2, g, H, jnp.full(n, 1e-3, p.dtype), jnp.zeros(n, bool))
    _, p, chi2, _, H, damping, done = jax.lax.while_loop(going, step, begin)
    return p, H, chi2, done | (damping > 1e8)


def bfgs(jax, ln_flux, p, star: Whitened, box, trials: int = MOST_TRIALS):
    """(p, curvature, chi2, converged) as the paper does it: BFGS on chi2 / 2, labels kept in the box by tanh.

    One trial point per pass: accepted if it satisfies Armijo's condition, otherwise the step shrinks.
    """
    jnp = jax.numpy
    middle, half = (box[1] + box[0]) / 2, (box[1] - box[0]) / 2

    def bounded(q):
        return jnp.concatenate([middle + half * jnp.tanh(q[..., :3]), q[..., 3:]], -1)

    def value(q):
        r = residuals(jnp, ln_flux, bounded(q), star)
        return 0.5 * ((r * r).sum(-1) + q[:, 3] ** 2)

    def both(q):
        f, pull = jax.vjp(value, q)
        return f, pull(jnp.ones_like(f))[0]

    def attempt(state):
        k, q, f, g, B, length, done = state
        d = -jnp.einsum("nkl,nl->nk", B, g)
        slope = (d * g).sum(-1)
        wrong = slope >= 0
        d, slope = jnp.where(wrong[:, None], -g, d), jnp.where(wrong, -(g * g).sum(-1), slope)
        most = 1.0 / jnp.maximum(jnp.abs(d[:, :3]).max(-1), 1.0)  # no further than one unit of tanh at a time
        s = (length * most)[:, None] * d
        f_new, g_new = both(q + s)
        good = (f_new <= f + 1e-4 * length * most * slope) & ~done
        y, rho = g_new - g, ((g_new - g) * s).sum(-1)
        use = good & (rho > 1e-12)
        r = 1 / jnp.where(use, rho, 1.0)
        left = jnp.eye(4) - r[:, None, None] * s[:, :, None] * y[:, None, :]
        new_B = jnp.einsum("nij,njk,nlk->nil", left, B, left) + r[:, None, None] * s[:, :, None] * s[:, None, :]
        B = jnp.where(use[:, None, None], new_B, B)
        q, f = jnp.where(good[:, None], q + s, q), jnp.where(good, f_new, f)
        g = jnp.where(good[:, None], g_new, g)
        length = jnp.where(good, 1.0, jnp.where(done, length, 0.3 * length))
        stuck = length < 1e-6
        done = done | (jnp.abs(g).max(-1) < GRADIENT) | stuck
        return k + 1, q, f, g, B, length, done

    x = jnp.clip((p[:, :3] - middle) / half, -0.999, 0.999)
    q = jnp.concatenate([jnp.arctanh(x), p[:, 3:]], -1)
    f, g = both(q)
    n = len(q)
    scale = 1 / jnp.maximum(jnp.abs(g).max(-1), 1.0)
    B = scale[:, None, None] * jnp.eye(4)
    begin = (0, q, f, g, B, jnp.ones(n), jnp.zeros(n, bool))
    _, q, _, g, _, _, done = jax.lax.while_loop(lambda s: (s[0] < trials) & ~s[-1].all(), attempt, begin)
    p = bounded(q)
    chi2, _, H = products(jax, ln_flux, p, star)
    return p, H, chi2, done


def hessian(jax, ln_flux, p, star: Whitened):
    """Half the second derivatives of chi2 (N, 4, 4), exactly."""
    jnp = jax.numpy

    def half(q):
        r = residuals(jnp, ln_flux, q, star)
        return 0.5 * ((r * r).sum(-1) + q[:, 3] ** 2).sum()

    def along(direction):
        return jax.jvp(jax.grad(half), (p,), (jnp.broadcast_to(direction, p.shape),))[1]

    return jax.vmap(along)(jnp.eye(4)).transpose(1, 2, 0)
