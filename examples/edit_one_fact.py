"""
Edit one fact of the model that the package brings, and print what the model says before and after.

    python examples/edit_one_fact.py
"""

from hf_ftedit import EditConfig, EditTrainer, load_model, load_tokenizer

BASE = "hf_ftedit/embedded"  # or the Hub id of any causal LM
FACT = {"prompt": "The capital of France is", "subject": "France", "target_new": "Lyon", "target_true": "Paris"}

model, tokenizer = load_model(BASE), load_tokenizer(BASE)


def completed(prompt: str) -> str:
    """`prompt` with the model's next tokens."""
    output = model.generate(
        **tokenizer(prompt, return_tensors="pt").to(model.device), max_new_tokens=2, do_sample=False
    )
    return tokenizer.decode(output[0])


print("before:", completed(FACT["prompt"]))
config = EditConfig(num_paraphrases=5, num_locality=10, disable_tqdm=True)
trainer = EditTrainer(model=model, args=config, train_dataset=[FACT], processing_class=tokenizer)
trainer.train()
model.eval()
print("after: ", completed(FACT["prompt"]))  # `trainer.save_model("lyon")` writes the adapter
