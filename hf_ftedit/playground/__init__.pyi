from .page import launch as launch
from .visits import Playground as Playground
