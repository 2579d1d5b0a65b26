"""Edit facts in causal language models by standard fine-tuning (Gangadhar & Stratos 2024, arXiv 2402.11078)."""

import lazy_loader

__version__ = "0.2.0"

# The public names stand in __init__.pyi, for type checkers and for this: each is imported where it is first used, so
# that `import hf_ftedit` loads no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
