"""Two samples of one prompt at temperature 0.8, drafted by a smaller model: the law is the target's own."""

import treewright as tw

model, draft = tw.load("default"), tw.load("default-draft")
result = tw.generate(
    model, "-- How many schools are in Texas?\n", method="specinfer", options={"expansion": (2, 2, 1)}, models={"draft": draft},
    n=2, temperature=0.8, top_p=0.95, seed=7, max_new_tokens=40,
)  # fmt: skip
for sample in result.samples:
    print(repr(sample.text))
print(f"{result.trace.tokens_per_call:.2f} tokens per call of the target")
