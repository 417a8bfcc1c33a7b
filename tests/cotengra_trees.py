"""What tests with cotengra share; imports cotengra."""

import cotengra

CHAIN = "ij,jk,kl,lm->im", [(2, 3), (3, 5), (5, 7), (7, 11)]


def arrays_of(shapes, rng):
    return [rng.standard_normal(shape) for shape in shapes]


def sliced_chain(*labels):
    tree = cotengra.einsum_tree(CHAIN[0], *CHAIN[1])
    for label in labels:
        tree.remove_ind_(label)
    return tree
