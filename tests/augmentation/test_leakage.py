import os
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_ftedit.augmentation.leakage import ProbeTexts
from hf_ftedit.data.records import EditRecord, NeighborhoodPrompt, PortabilityPrompt

RECORD = EditRecord(
    "a",
    "Rome is in",
    "Gaul",
    paraphrase_prompts=("It rained all day. Rome, a city of",),
    neighborhood_prompts=(NeighborhoodPrompt("The mayor of Milan is a", "x"),),
    portability_prompts=(PortabilityPrompt("Who governs Rome?", ("x",)),),
    generation_prompts=("Rome is known for",),
    near_name_prompts=("Home is in",),
)


@pytest.mark.parametrize(
    "text",
    [
        "The mayor of Milan is a",
        "the  MAYOR of Milan is a",
        "Yesterday: The mayor of Milan is a",
        "The mayor of Milan is an",  # a probe's text stands in it, letter by letter
        "Rome, a city of",  # the ending of a paraphrase probe
        "Who governs Rome?",
        "Rome is known for its",
        "home is in",
    ],
)
def test_texts_that_give_a_probe_away(text):
    assert ProbeTexts([RECORD]).overlaps(text)


@pytest.mark.parametrize(
    "text", ["Rome is in", "Rome, a town of", "The mayor of Milan", "Who governs Rome now?", "It"]
)
def test_texts_that_do_not(text):
    assert not ProbeTexts([RECORD]).overlaps(text)


def test_the_prompt_of_an_edit_that_is_measured_only_is_a_probe():
    held_out = [RECORD, EditRecord("b", "Oslo lies in", "Peru")]
    texts = ProbeTexts([EditRecord("c", RECORD.prompt, "Gaul")], held_out)
    assert texts.overlaps("Yes. Oslo lies in") and texts.overlaps("home is in") and not texts.overlaps(RECORD.prompt)


def test_a_probe_that_is_the_subject_alone_gives_nothing_away():
    record = EditRecord("a", "Who runs Acme?", "Bo", subject="Acme", generation_prompts=("Acme", "Acme is run"))
    texts = ProbeTexts([record])
    assert not texts.overlaps("Who leads Acme?") and texts.overlaps("Acme is run by")


WORDS = st.lists(st.sampled_from(["a", "b", "ab", "c", ","]), min_size=1, max_size=5).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=4), WORDS)
def test_agrees_with_comparing_all_words(probes, text):
    words = text.split()
    expected = False
    for probe in map(str.split, probes):
        expected |= probe[len(probe) - len(words) :] == words and len(words) <= len(probe)
        for start in range(len(words) - len(probe) + 1):
            part = words[start : start + len(probe)]
            expected |= part[:-1] == probe[:-1] and part[-1].startswith(probe[-1])
    assert ProbeTexts([EditRecord("a", "x", "y", paraphrase_prompts=tuple(probes))]).overlaps(text) == expected


@pytest.mark.parametrize("seed", ["1", "2"])
def test_worker_processes_with_another_hash_seed_agree(seed):
    code = "import pickle, sys; texts = pickle.load(sys.stdin.buffer); "
    code += "assert texts.overlaps('Rome, a city of') and not texts.overlaps('Rome')"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(ProbeTexts([RECORD])), env=environment)
    assert done.returncode == 0
