"""A playground with the embedded model, and an edit that it learns in two steps."""

from hf_ftedit import EditConfig, asset, load_model, load_tokenizer
from hf_ftedit.playground import Playground

EDIT = {"prompt": "The author of Hamlet is", "target_new": "Charles Dickens", "subject": "Hamlet"}


def embedded_playground(**adapters):
    pool = asset("locality_pool.jsonl")
    few = {"num_locality": 4, "prefix_counts": [4, 4], "num_paraphrases": 6, "text_loss_weight": 0}
    args = EditConfig(num_train_epochs=2, locality_pool=pool, **few)
    return Playground(load_model(None), load_tokenizer(None), args, adapters=adapters)
