from .augmenter import Augmenter as Augmenter
from .builder import EditDatasetBuilder as EditDatasetBuilder
from .made_probes import with_made_probes as with_made_probes
from .questions import drift_prompts as drift_prompts
from .rows import encode_rows as encode_rows
from .rows import is_prompt_completion as is_prompt_completion
