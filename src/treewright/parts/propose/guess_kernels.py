"""The loops of `guesses`, compiled: looking up contexts, building a tree of the likeliest guesses, counting and learning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from treewright.ops.jit import jit

# What kernels read is written in their own file, or code that numba kept on disk would not see it change.
FREE, NONE = -1, -1
"""The key of a place that holds nothing; an id where there is none."""
ORDERS = 3
"""Longest context that predictions are kept for, in tokens."""
WIDEST = 8
"""Predictions kept of a context."""
FULL = 0.75
"""The part of a table's places beyond which nothing new is kept, so that a search always ends."""
LENGTHS = (2, 3, 4, 6, 10)
"""Least lengths of the match that a copied token continues, by kind."""
EDGES = np.array([0.005, 0.015, 0.04, 0.08, 0.16, 0.3, 0.45, 0.6, 0.75, 0.87, 0.95, 0.985])
"""Where the kinds of predictions part, by the share that the target gave the token among those it is kept with."""
SHARES = len(EDGES) + 1
KINDS = (len(LENGTHS) + 1) * (ORDERS + 1) * SHARES
COPIES = np.array([(ORDERS + 1) * SHARES * sum(match >= least for least in LENGTHS) for match in range(LENGTHS[-1] + 1)])
"""What a copy adds to the kind that a guess has as a prediction, by the tokens of its match, the longest last."""
TRUST = 12.0
"""Guesses of a kind that the prior is worth: all rows' counts for a row, a table for all rows."""
LASTING = 0.985
"""What a fading count keeps from token to token: a text changes."""
MOST_OPTIONS = ORDERS * WIDEST + 1
LONGEST_MATCH = len(COPIES) - 1
OVERFLOW = 1e9


class Known(NamedTuple):
    """What was predicted after contexts, an open hash table of C places, C a power of two.

    vocabulary: the base in which contexts are numbered; keys [C] int64: a context's number, FREE where there is none; ids
    [C, WIDEST] int32, NONE where there is none; shares [C, WIDEST] uint8: kinds of shares; stamp [C] int64: when it was learned;
    used [2] int64: places taken, and the time.
    """

    vocabulary: int
    keys: np.ndarray
    ids: np.ndarray
    shares: np.ndarray
    stamp: np.ndarray
    used: np.ndarray


class Script(NamedTuple):
    """A row's text. tokens [T] int64; pairs [P] int64: the numbers of its pairs of tokens, a hash table as in `Known`; places
    [P]: where the text goes on behind a pair's last place; at [3] int64: length, pointer, match."""

    vocabulary: int
    tokens: np.ndarray
    pairs: np.ndarray
    places: np.ndarray
    at: np.ndarray


class Counts(NamedTuple):
    """Guesses by kind and how many were right, [KINDS] each. now [1]: what a guess of this moment weighs: where counts fade, the
    present grows instead of the past fading, so that a token costs nothing."""

    hits: np.ndarray
    tries: np.ndarray
    now: np.ndarray

    @staticmethod
    def none() -> Counts:
        """Before anything was counted."""
        return Counts(np.zeros(KINDS), np.zeros(KINDS), np.ones(1))


class Buffers(NamedTuple):
    """Where a tree of N claims is written, [N] each, visible [N, N], as in `Shape`; chance: how likely the claim is text."""

    token: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    visible: np.ndarray
    chance: np.ndarray


@jit
def find(keys: np.ndarray, key: int) -> int:
    """The place of a number in an open hash table, or where it would be put."""
    mask = np.uint64(len(keys) - 1)
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    place = (mixed ^ (mixed >> np.uint64(32))) & mask
    while keys[place] != key and keys[place] != FREE:
        place = (place + np.uint64(1)) & mask
    return int(place)


@jit
def moved(script: Script, pointer: int, match: int, last: int, token: int) -> tuple[int, int]:
    """Pointer and match once `token` stands after `last`: one on where it was copied, else behind the last place of the pair."""
    if 0 <= pointer < script.at[0] and script.tokens[pointer] == token:
        return pointer + 1, match + 1
    place = find(script.pairs, last * script.vocabulary + token)
    if script.pairs[place] == FREE:
        return -1, 0
    return script.places[place], 2


@jit
def append(script: Script, token: int) -> None:
    """The text goes on. There must be room."""
    length = script.at[0]
    last = script.tokens[length - 1] if length else script.vocabulary
    script.at[1], script.at[2] = moved(script, script.at[1], script.at[2], last, token)
    script.tokens[length] = token
    script.at[0] = length + 1
    if length:
        place = find(script.pairs, last * script.vocabulary + token)
        if script.pairs[place] == FREE:
            script.pairs[place] = last * script.vocabulary + token
        script.places[place] = length + 1


@jit
def extend(script: Script, counts: Counts, tokens: np.ndarray) -> None:
    """The text goes on with several tokens."""
    for token in tokens:
        append(script, token)
        pass_on(counts)


@jit
def pass_on(counts: Counts) -> None:
    """A token was written, and what was counted before it weighs less."""
    counts.now[0] /= LASTING
    if counts.now[0] > OVERFLOW:
        counts.hits[:] /= counts.now[0]
        counts.tries[:] /= counts.now[0]
        counts.now[0] = 1.0


@jit
def guess(
    known: Known, script: Script, context: np.ndarray, pointer: int, match: int,
    tokens: np.ndarray, kinds: np.ndarray,
) -> int:  # fmt: skip
    """How many guesses there are after `context` [n], its last token last; they and their kinds are written into the last two."""
    places, orders, key = np.empty(ORDERS, np.int64), 0, 0
    for back in range(1, min(ORDERS, len(context)) + 1):
        key = key * known.vocabulary + context[-back] + 1
        place = find(known.keys, key)
        if known.keys[place] == FREE:
            break
        places[orders] = place
        orders += 1
    found = 0
    for order in range(orders - 1, -1, -1):
        for rank in range(WIDEST):
            token = known.ids[places[order], rank]
            if token < 0:
                break
            new = True
            for other in range(found):
                new = new and tokens[other] != token
            if new:
                tokens[found], kinds[found] = token, order * SHARES + known.shares[places[order], rank]
                found += 1
        if found >= WIDEST:
            break
    if 0 <= pointer < script.at[0]:
        copied, shift = script.tokens[pointer], COPIES[min(match, LONGEST_MATCH)]
        for other in range(found):
            if tokens[other] == copied:
                kinds[other] += shift
                return found
        tokens[found], kinds[found] = copied, ORDERS * SHARES + shift
        found += 1
    return found


@jit
def chance_of(kind: int, row: Counts, shared: Counts, prior: np.ndarray) -> float:
    """The chance that a guess of this kind comes where its place is reached: a row's counts drawn to those of all rows, these to
    the prior."""
    trust = TRUST * shared.now[0]
    common = (shared.hits[kind] + trust * prior[kind]) / (shared.tries[kind] + trust)
    trust = TRUST * row.now[0]
    return (row.hits[kind] + trust * common) / (row.tries[kind] + trust)


@jit
def options(
    known: Known, script: Script, chances: np.ndarray, context: np.ndarray, pointer: int, match: int,
    tokens: np.ndarray, likely: np.ndarray,
) -> int:  # fmt: skip
    """Like `guess`, the likeliest first, with their chances. chances [KINDS]."""
    kinds = np.empty(MOST_OPTIONS, np.int64)
    found = guess(known, script, context, pointer, match, tokens, kinds)
    for index in range(found):
        token, chance, place = tokens[index], chances[kinds[index]], index
        while place and likely[place - 1] < chance:
            likely[place], tokens[place] = likely[place - 1], tokens[place - 1]
            place -= 1
        likely[place], tokens[place] = chance, token
    return found


@jit
def all_chances(row: Counts, shared: Counts, prior: np.ndarray) -> np.ndarray:
    """`chance_of` every kind, [KINDS]."""
    chances = np.empty(KINDS)
    for kind in range(KINDS):
        chances[kind] = chance_of(kind, row, shared, prior)
    return chances


@jit
def grow_tree(
    known: Known, script: Script, row: Counts, shared: Counts, prior: np.ndarray, most: int, deepest: int, worth: float,
    out: Buffers,
) -> int:  # fmt: skip
    """Writes the `most` likeliest claims below the frontier, no deeper than `deepest`, as far as their chance is at least
    `worth`; the number of columns, the frontier included."""
    tokens, likely = np.empty((most + 1, MOST_OPTIONS), np.int64), np.empty((most + 1, MOST_OPTIONS))
    count, rank, value = np.zeros(most + 1, np.int64), np.zeros(most + 1, np.int64), np.full(most + 1, -1.0)
    context = np.empty((most + 1, ORDERS), np.int64)
    at = np.empty((most + 1, 2), np.int64)
    length = script.at[0]
    kept = min(ORDERS, length)
    context[0, ORDERS - kept :] = script.tokens[length - kept : length]
    at[0, 0], at[0, 1] = script.at[1], script.at[2]
    columns, chances = 1, all_chances(row, shared, prior)
    if deepest > 0:
        before = context[0, ORDERS - kept :]
        count[0] = options(known, script, chances, before, at[0, 0], at[0, 1], tokens[0], likely[0])
        value[0] = likely[0, 0] if count[0] else -1.0
    while columns <= most:
        above = int(np.argmax(value[:columns]))
        chance = value[above]
        if chance < worth or chance < 0:
            break
        token, node = tokens[above, rank[above]], columns
        rank[above] += 1
        value[above] = out.chance[above] * likely[above, rank[above]] if rank[above] < count[above] else -1.0
        out.token[node], out.parent[node], out.depth[node], out.chance[node] = token, above, out.depth[above] + 1, chance
        out.visible[node, :columns] = out.visible[above, :columns]
        out.visible[node, node] = True
        at[node, 0], at[node, 1] = moved(script, at[above, 0], at[above, 1], context[above, ORDERS - 1], token)
        context[node, : ORDERS - 1] = context[above, 1:]
        context[node, ORDERS - 1] = token
        columns += 1
        # A child is never likelier than its parent, so what is not worth looking below is left.
        if out.depth[node] < deepest and columns <= most and chance >= worth:
            before = context[node, ORDERS - min(ORDERS, kept + out.depth[node]) :]
            count[node] = options(known, script, chances, before, at[node, 0], at[node, 1], tokens[node], likely[node])
            value[node] = chance * likely[node, 0] if count[node] else -1.0
    return columns


@jit
def grade(known: Known, script: Script, row: Counts, shared: Counts, written: np.ndarray) -> None:
    """The text goes on with these tokens: counts what would have been guessed at each."""
    tokens, kinds = np.empty(MOST_OPTIONS, np.int64), np.empty(MOST_OPTIONS, np.int64)
    for token in written:
        length = script.at[0]
        context = script.tokens[max(0, length - ORDERS) : length]
        found = guess(known, script, context, script.at[1], script.at[2], tokens, kinds)
        for index in range(found):
            hit, kind = tokens[index] == token, kinds[index]
            row.tries[kind] += row.now[0]
            shared.tries[kind] += shared.now[0]
            if hit:
                row.hits[kind] += row.now[0]
                shared.hits[kind] += shared.now[0]
        append(script, token)
        pass_on(row)


@jit
def part_shares(values: np.ndarray, kinds: np.ndarray) -> None:
    """Writes into kinds [N, k] the kind of the share that each token has in softmax(values [N, k])."""
    for row in range(len(values)):
        weights = np.exp(values[row].astype(np.float64) - values[row, 0])
        weights /= weights.sum()
        for rank in range(len(weights)):
            kind = 0
            while kind < len(EDGES) and weights[rank] > EDGES[kind]:
                kind += 1
            kinds[row, rank] = kind


@jit
def keep(known: Known, context: np.ndarray, ids: np.ndarray, shares: np.ndarray) -> None:
    """Keeps what was predicted after the last one, two ... tokens of `context`; contexts that are new are left where the table is
    full."""
    key, width = 0, min(len(ids), WIDEST)
    known.used[1] += 1
    for back in range(1, min(ORDERS, len(context)) + 1):
        key = key * known.vocabulary + context[-back] + 1
        place = find(known.keys, key)
        if known.keys[place] == FREE:
            if known.used[0] >= FULL * len(known.keys):
                return
            known.keys[place] = key
            known.used[0] += 1
        known.ids[place, :width] = ids[:width]
        known.shares[place, :width] = shares[:width]
        known.ids[place, width:] = NONE
        known.stamp[place] = known.used[1]


@jit
def learn_tree(
    known: Known, before: np.ndarray, tokens: np.ndarray, parents: np.ndarray, ids: np.ndarray, shares: np.ndarray
) -> None:
    """Keeps what was predicted at each claim. before [n]: the text's last tokens, the frontier last; others [N] and [N, k]."""
    kept = len(before)
    context, depth = np.empty((len(tokens), ORDERS), np.int64), np.full(len(tokens), -1)
    context[0, ORDERS - kept :], depth[0] = before, 0
    for column in range(len(tokens)):
        if column:
            above = parents[column]
            if tokens[column] < 0 or above < 0 or depth[above] < 0:
                continue
            context[column, : ORDERS - 1] = context[above, 1:]
            context[column, ORDERS - 1] = tokens[column]
            depth[column] = depth[above] + 1
        first = ORDERS - min(ORDERS, kept + depth[column])
        keep(known, context[column, first:], ids[column], shares[column])


@jit
def learn_text(known: Known, text: np.ndarray, first: int, ids: np.ndarray, shares: np.ndarray) -> None:
    """Keeps what was predicted at the places of a text from `first` on: ids [n, k]."""
    for index in range(len(ids)):
        end = first + index + 1
        keep(known, text[max(0, end - ORDERS) : end], ids[index], shares)


@jit
def rehash(old: Known, new: Known, since: int) -> None:
    """Copies what was learned since then into a table that holds nothing."""
    new.used[1] = old.used[1]
    for place in range(len(old.keys)):
        if old.keys[place] != FREE and old.stamp[place] >= since:
            other = find(new.keys, old.keys[place])
            new.keys[other] = old.keys[place]
            new.ids[other], new.shares[other] = old.ids[place], old.shares[place]
            new.stamp[other] = old.stamp[place]
            new.used[0] += 1


@jit
def rehash_pairs(old: Script, new: Script) -> None:
    """Copies a text into larger arrays that hold nothing."""
    new.tokens[: old.at[0]] = old.tokens[: old.at[0]]
    new.at[:] = old.at
    for place in range(len(old.pairs)):
        if old.pairs[place] != FREE:
            other = find(new.pairs, old.pairs[place])
            new.pairs[other], new.places[other] = old.pairs[place], old.places[place]
