"""For people who stay with transformers: the same methods through model.generate."""

import treewright as tw

model = tw.load("default")
inputs = model.tokenizer("Once upon a time", return_tensors="pt")
output = model.model.generate(
    **inputs, custom_generate=tw.hf.custom_generate("token_recycling"), max_new_tokens=40, do_sample=False, repetition_penalty=1.1
)
print(model.tokenizer.decode(output[0], skip_special_tokens=True))
