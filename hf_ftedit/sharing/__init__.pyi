from .merging import merge as merge
from .verification import BAD as BAD
from .verification import verify as verify
