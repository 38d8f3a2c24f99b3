"""Losslessness as a law: the exact distribution over sequences, through the engine, against its definition."""

import treewright as tw

print(tw.laws.lossless("token_recycling"))
