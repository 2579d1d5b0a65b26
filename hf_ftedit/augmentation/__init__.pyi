from .augmenter import Augmenter as Augmenter
from .builder import EditDatasetBuilder as EditDatasetBuilder
from .leakage import ProbeTexts as ProbeTexts
from .made_probes import with_made_probes as with_made_probes
from .questions import drift_prompts as drift_prompts
from .relations import mentions as mentions
from .rows import encode_rows as encode_rows
from .rows import is_prompt_completion as is_prompt_completion
