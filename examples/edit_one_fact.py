"""
Edit one fact of the model that the package brings, and print what it says before and after, of a neighbor too.

    python examples/edit_one_fact.py
"""

from hf_ftedit import EditConfig, EditTrainer, asset, load_model, load_tokenizer

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
config = EditConfig(num_train_epochs=3, disable_tqdm=True)
pool = asset("locality_pool.jsonl")  # facts that must stay
trainer = EditTrainer(model, config, train_dataset=[FACT], locality_pool=pool, processing_class=tokenizer)
trainer.train()
model.eval()
print("after: ", completed(FACT["prompt"]))  # `trainer.save_model("lyon")` writes the adapter
print("beside:", completed("The capital of Italy is"))
