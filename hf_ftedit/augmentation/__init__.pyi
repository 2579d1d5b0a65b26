from .augmenter import Augmenter as Augmenter
from .builder import EditDatasetBuilder as EditDatasetBuilder
from .builder import encode_rows as encode_rows
from .builder import is_prompt_completion as is_prompt_completion
