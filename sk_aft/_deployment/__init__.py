"""Students as folders: config.json, model.safetensors, tokenizer.json, README.md and onnx/."""
