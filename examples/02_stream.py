"""Text as it is decided. A stop string never shows, not even a piece of it."""

import treewright as tw

model = tw.load("default")
for piece in tw.stream(model, "Once upon a time", method="prompt_lookup", max_new_tokens=80, stop=["\n\n"]):
    print(piece, end="", flush=True)
print()
