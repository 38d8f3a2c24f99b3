"""Output that is always valid: a JSON schema, under speculation, at temperature 1. The text is plain sampling's own."""

import json

import treewright as tw

model = tw.load("default")
person = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "languages": {"type": "array", "items": {"enum": ["Python", "SQL", "Rust"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "languages"],
    "additionalProperties": False,
}

prompt = '{"users": [\n'
settings = {"max_new_tokens": 100, "temperature": 1.0, "constraint": tw.json_schema(person)}
result = tw.generate(model, prompt, method="token_recycling", **settings)
print(json.loads(result.text), result.finish_reason, f"in {result.trace.model_calls} model calls")
assert result.tokens == tw.generate(model, prompt, **settings).tokens
