"""A page in the browser: facts are edited, and what the model said before and says now stands side by side."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
