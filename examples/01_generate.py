"""Decode two prompts at once with Token Recycling and see what it cost."""

import treewright as tw

model = tw.load("default")
prompts = ["Once upon a time, there was a little dog who", "def read_lines(path):\n"]

for prompt, result in zip(prompts, tw.generate(model, prompts, method="token_recycling", max_new_tokens=60), strict=True):
    trace = result.trace
    print(f"{prompt}{result.text}")
    print(f"-- {len(result.tokens)} tokens in {trace.model_calls} model calls, ended by {result.finish_reason}\n")
