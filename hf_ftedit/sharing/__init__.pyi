from .exporting import command_for as command_for
from .exporting import export as export
from .merging import merge as merge
from .survival import survival_lines as survival_lines
from .survival import survival_table as survival_table
from .verification import BAD as BAD
from .verification import verify as verify
