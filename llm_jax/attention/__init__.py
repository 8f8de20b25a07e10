"""Attention: who sees whom (`mask`), five ways to compute it, and the choice between them.

Legend of this package: B batch, T query length, S key length, N query heads, K key/value heads,
G = N/K query heads per key/value head, H head size.
"""
