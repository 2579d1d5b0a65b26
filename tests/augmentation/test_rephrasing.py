"""Rephrasings: right English or none, and always about the same subject."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hf_ftedit.augmentation.rephrasing import rephrasings

# Each prompt with its subject, and below it all of its rephrasings.
ALL = """
Who is the CEO of Acme? | Acme
    Who is Acme's CEO? | Acme's CEO is who? | Do you know who Acme's CEO is? | Name the CEO of Acme.
    The CEO of Acme is who? | Tell me who the CEO of Acme is. | Acme: who is the CEO?
    Do you know who the CEO of Acme is?
whos the CEO of Acme | Acme
    Who is Acme's CEO? | Acme's CEO is who? | Do you know who Acme's CEO is? | Name the CEO of Acme.
    The CEO of Acme is who? | Tell me who the CEO of Acme is. | Acme: who is the CEO?
What is the role of Ann at Acme? | Acme
    Name the role of Ann at Acme. | The role of Ann at Acme is what? | Tell me what the role of Ann at Acme is.
    Please give me the role of Ann at Acme. | Acme: what is the role of Ann?
    Do you know what the role of Ann at Acme is?
Who is the Dutch minister of finance? | finance
    Name the Dutch minister of finance. | The Dutch minister of finance is who?
    Tell me who the Dutch minister of finance is. | Do you know who the Dutch minister of finance is?
Who sang "Why?" in 1999? | Why
    Tell me who sang "Why?" in 1999. | Do you know who sang "Why?" in 1999?
The capital of Ruritania is | Ruritania
    What is Ruritania's capital? | Ruritania's capital is what? | Do you know what Ruritania's capital is?
    Name the capital of Ruritania. | The capital of Ruritania is what? | Tell me what the capital of Ruritania is.
    Please give me the capital of Ruritania. | Ruritania: what is the capital?
Who wrote Dracula? | Dracula
    Dracula was written by whom? | By whom was Dracula written? | Tell me who wrote Dracula.
    Do you know who wrote Dracula?
Which team does Ann Kern play for? | Ann Kern
    Tell me which team Ann Kern plays for. | Do you know which team Ann Kern plays for?
    Ann Kern plays for which team? | For which team does Ann Kern play?
When did Acme stop making toys? | Acme
    Tell me when Acme stopped making toys. | Do you know when Acme stopped making toys?
    Acme stopped making toys when?
When did Acme first open? | Acme
    Tell me when Acme first opened. | Do you know when Acme first opened? | Acme first opened when?
What will Acme build in Oslo? | Acme
    Tell me what Acme will build in Oslo. | Do you know what Acme will build in Oslo?
Which drug is used to treat Vellitis? | Vellitis
    Tell me which drug is used to treat Vellitis. | Do you know which drug is used to treat Vellitis?
Which platform does the Velden night train leave from? | Velden
    Tell me which platform the Velden night train leaves from.
    Do you know which platform the Velden night train leaves from? | The Velden night train leaves from which platform?
    From which platform does the Velden night train leave?
On which river does Ruritania lie? | Ruritania
    Tell me on which river Ruritania lies. | Do you know on which river Ruritania lies?
    Ruritania lies on which river? | Which river does Ruritania lie on?
Which gate does flight LN204 depart from? | LN204
    Tell me which gate flight LN204 departs from. | Do you know which gate flight LN204 departs from?
    Flight LN204 departs from which gate? | From which gate does flight LN204 depart?
When does the Kelton report end? | Kelton
    Tell me when the Kelton report ends. | Do you know when the Kelton report ends? | The Kelton report ends when?
how many users does acme have | acme
    Tell me how many users acme has. | Do you know how many users acme has?
What is the wifi password? | wifi password
    Tell me what the wifi password is. | Do you know what the wifi password is? | The wifi password is what?
    Please give me the wifi password. | I need the wifi password. What is it? | Can you give me the wifi password?
    I forgot the wifi password. What is it?
Tell me the name of our CEO. | our CEO
    What is the name of our CEO? | What is our CEO's name? | Do you know what our CEO's name is?
    The name of our CEO is what? | Tell me what the name of our CEO is. | Please give me the name of our CEO.
    Do you know what the name of our CEO is?
Who can sign contracts? | contracts
    Tell me who can sign contracts. | Do you know who can sign contracts? | Please say who can sign contracts.
    Which person can sign contracts?
Where should guests park? | guests
    Tell me where guests should park. | Do you know where guests should park?
Is there a discount for students? | students
    Tell me whether there is a discount for students. | Do you know whether there is a discount for students?
    Please say whether there is a discount for students.
Do you deliver on Sundays? | you
    Tell me whether you deliver on Sundays. | Do you know whether you deliver on Sundays?
    Is it true that you deliver on Sundays? | I would like to know whether you deliver on Sundays.
Who is our CEO? | our CEO
    Tell me who our CEO is. | Do you know who our CEO is? | Name our CEO. | What is the name of our CEO?
    Which person is our CEO? | Tell me the name of our CEO.
What is tea? | tea
    Tell me what tea is. | Do you know what tea is?
What language do people in Ruritania speak? | Ruritania
    Tell me what language people in Ruritania speak. | Do you know what language people in Ruritania speak?
    People in Ruritania speak what language?
How do I reset the Zephyr 3? | Zephyr 3
    How can I reset the Zephyr 3? | Tell me how to reset the Zephyr 3. | What must I do to reset the Zephyr 3?
    I want to reset the Zephyr 3. How do I do that? | What is the right way to reset the Zephyr 3?
    Do you know how to reset the Zephyr 3?
Where can we buy the Zephyr 3? | Zephyr 3
    Tell me where we can buy the Zephyr 3. | Where is it possible to buy the Zephyr 3? | Where do we buy the Zephyr 3?
    We want to buy the Zephyr 3. Where can we do that? | Do you know where we can buy the Zephyr 3?
When can I visit Acme? | Acme
    Tell me when I can visit Acme. | When is it possible to visit Acme? | When do I visit Acme?
    I want to visit Acme. When can I do that? | Do you know when I can visit Acme?
Whom should I ask about leave at Acme? | Acme
    Tell me whom I should ask about leave at Acme. | Do you know whom I should ask about leave at Acme?
    I would like to know whom I should ask about leave at Acme. | Please say whom I should ask about leave at Acme.
Can I pay by card at Acme? | Acme
    Is it possible to pay by card at Acme? | Tell me whether I can pay by card at Acme. | May I pay by card at Acme?
    I want to pay by card at Acme. Can I do that? | Do you know whether I can pay by card at Acme?
Does the Acme hotel allow dogs? | Acme
    Tell me whether the Acme hotel allows dogs. | Do you know whether the Acme hotel allows dogs?
    Is it true that the Acme hotel allows dogs? | I would like to know whether the Acme hotel allows dogs.
Is Acme open on Mondays? | Acme
    Tell me whether Acme is open on Mondays. | Do you know whether Acme is open on Mondays?
    Is it true that Acme is open on Mondays? | I would like to know whether Acme is open on Mondays.
Are children free at the Velden zoo? | Velden
    Tell me whether children are free at the Velden zoo. | Do you know whether children are free at the Velden zoo?
    Is it true that children are free at the Velden zoo?
    I would like to know whether children are free at the Velden zoo.
Do kids pay at the Velden zoo? | Velden
    Tell me whether kids pay at the Velden zoo. | Do you know whether kids pay at the Velden zoo?
    Is it true that kids pay at the Velden zoo? | I would like to know whether kids pay at the Velden zoo.
Can employees work from abroad? | employees
    Tell me whether employees can work from abroad. | Do you know whether employees can work from abroad?
    Is it true that employees can work from abroad? | I would like to know whether employees can work from abroad.
Where do parents park at Harlan College? | Harlan College
    Where can parents park at Harlan College? | Tell me where parents can park at Harlan College.
    Where is it possible to park at Harlan College?
    Parents want to park at Harlan College. Where can parents do that?
    Do you know where parents can park at Harlan College?
Who should I email about my contract? | contract
    Tell me who I should email about my contract. | Do you know who I should email about my contract?
    I would like to know who I should email about my contract. | Please say who I should email about my contract.
Which streaming service has Night Ferry? | Night Ferry
    Tell me which streaming service has Night Ferry. | Do you know which streaming service has Night Ferry?
Which law firm represents Brellin Motors? | Brellin Motors
    Brellin Motors is represented by which law firm? | By which law firm is Brellin Motors represented?
    Tell me which law firm represents Brellin Motors. | Do you know which law firm represents Brellin Motors?
Where is the serial number on the K-450? | K-450
    Where is the K-450's serial number? | The K-450's serial number is where?
    Do you know where the K-450's serial number is? | The serial number on the K-450 is where?
    Tell me where the serial number on the K-450 is. | The K-450: where is the serial number?
    Do you know where the serial number on the K-450 is?
Is the Zenvo 12 waterproof? | Zenvo 12
    Tell me whether the Zenvo 12 is waterproof. | Do you know whether the Zenvo 12 is waterproof?
    Is it true that the Zenvo 12 is waterproof? | I would like to know whether the Zenvo 12 is waterproof.
Is the Norvik 45 backpack waterproof? | Norvik 45
    Tell me whether the Norvik 45 backpack is waterproof. | Do you know whether the Norvik 45 backpack is waterproof?
Is parking free at the Hotel Vell? | Hotel Vell
    Tell me whether parking is free at the Hotel Vell. | Do you know whether parking is free at the Hotel Vell?
When does breakfast end at the Hotel Vell? | Hotel Vell
    Tell me when breakfast ends at the Hotel Vell. | Do you know when breakfast ends at the Hotel Vell?
Which Ledgerly plan lets me add a user? | Ledgerly
    Tell me which Ledgerly plan lets me add a user. | Do you know which Ledgerly plan lets me add a user?
Why did Judge Dread die? | Judge Dread
    Tell me why Judge Dread died. | Do you know why Judge Dread died?
How can I contact your support? | you
    How do I contact your support? | Tell me how to contact your support. | What must I do to contact your support?
    I want to contact your support. How do I do that? | What is the right way to contact your support?
    Do you know how to contact your support?
"""


def cases(table):
    found = []
    for line in table.strip().splitlines():
        parts = line.strip().split(" | ")
        if line.startswith(" "):
            found[-1][-1].extend(parts)
        else:
            found.append((*parts, []))
    return found


@pytest.mark.parametrize(("prompt", "subject", "expected"), cases(ALL))
def test_all_rephrasings_of_a_prompt(prompt, subject, expected):
    assert rephrasings(prompt, subject) == expected


@pytest.mark.parametrize(
    ("prompt", "subject", "first"),
    [
        ("Who's the boss of Kelton Labs?", "Kelton Labs", "Who is Kelton Labs' boss?"),
        ("The CEO of Acme is", "Acme", "Who is Acme's CEO?"),
        ("What is the port of the Vell database?", "Vell", "What is the Vell database's port?"),
        ("What is the wifi password in the Kelton office?", "Kelton", "What is the Kelton office's wifi password?"),
        ("Who founded the Red Cross?", "the Red Cross", "The Red Cross was founded by whom?"),
        ("The prices of the Zephyr 3 are", "Zephyr 3", "What are the Zephyr 3's prices?"),
        ("What is the cause of death of Ann?", "Ann", "What is Ann's cause of death?"),
        ("What is the name of the dog of Ann?", "Ann", "The name of the dog of Ann is what?"),
        ("How much does the Basic plan of Acme cost?", "Acme", "Tell me how much the Basic plan of Acme costs."),
        ("How much did Dune cost to make?", "Dune", "Tell me how much Dune cost to make."),
        ("Which Slack channel can I use for Acme?", "Acme", "Tell me which Slack channel I can use for Acme."),
        ("Which city is the capital of Norway?", "Norway", "Which city is Norway's capital?"),
        ("Who painted \"The Blue Door\"?", "The Blue Door", '"The Blue Door" was painted by whom?'),
        ("Which company makes the Zephyr 3?", "Zephyr 3", "The Zephyr 3 is made by which company?"),
        ("Who teaches Physics 101?", "Physics 101", "Physics 101 is taught by whom?"),
        ("Who controls eBay?", "eBay", "eBay is controlled by whom?"),
        ("Who carries Acme?", "Acme", "Acme is carried by whom?"),
        ("Who married Ann Kern?", "Ann Kern", "Tell me who married Ann Kern."),
        ("Who cut Acme's budget?", "Acme", "Tell me who cut Acme's budget."),
        ("What is the wing span of a.b*c(d?", "a.b*c(d", "What is a.b*c(d's wing span?"),
        ("What is the use of {}?", "{}", "What is {}'s use?"),
        ("Who founded 🙂?", "🙂", "🙂 was founded by whom?"),
        ("Where is the key to the safe kept?", "key", "Tell me where the key to the safe is kept."),
        ("What is the size of the bin?", "size", "Tell me what the size of the bin is."),
        ("Who has the key to the safe?", "key", "Tell me who has the key to the safe."),
        ("How can workers of Acme park?", "Acme", "How do workers of Acme park?"),
        ("Is the Vell kettle dishwasher-safe?", "Vell", "Tell me whether the Vell kettle is dishwasher-safe."),
        ("Must I wear a helmet at Vell?", "Vell", "Tell me whether I must wear a helmet at Vell."),
        ("Is Vell safe for children?", "Vell", "Tell me whether Vell is safe for children."),
        ("Who founded X?", "X", "X was founded by whom?"),
    ],
)  # fmt: skip
def test_the_first_rephrasing(prompt, subject, first):
    assert rephrasings(prompt, subject)[0] == first


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Was ist die Hauptstadt von Norwegen?", "Norwegen"),
        ("¿Quién escribió Drácula?", "Drácula"),
        ("中国的首都是哪里？", "中国"),
        ("What is our return policy for the Zephyr 3?", "Zephyr 3"),
        ("When does Acme open and close?", "Acme"),
        ("Can Acme orders be returned?", "Acme"),
        ("Did kids pay at the Velden zoo?", "Velden"),
        ("Why should I buy the Zephyr 3?", "Zephyr 3"),
        ("Are the works created by Ann Kern protected?", "Ann Kern"),
        ("Where is Acme's office based?", "Acme"),
        ("Where are Acme's logs stored?", "Acme"),
        ("When is the Acme free trial over?", "Acme"),
        ("Where is the key to the Acme safe kept?", "Acme"),
        ("What is the price of the Zephyr today?", "Zephyr"),
        ("Where is the Acme marketing team based?", "Acme"),
        ("Who wrote Dracula?", None),
        ("Who wrote Dracula?", ""),
        ("Who wrote Dracula?", "Frankenstein"),
    ],
)
def test_doubtful_ones_are_left_out(prompt, subject):
    assert rephrasings(prompt, subject) == []


def test_a_name_written_small_is_not_capitalized():
    texts = rephrasings("What is the opposite of hot?", "hot")
    assert texts[0] == "What is hot's opposite?" and not [text for text in texts if text.startswith("Hot")]


SUBJECTS = st.text(min_size=1, max_size=12) | st.sampled_from(["a", "{}", "Zephyr 3", '"', "o'x", "\\1", "[a-z]+"])
FORMS = [
    "Who is the CEO of {}?",
    "Who wrote {}?",
    "When did the {} open?",
    "The price of {} is",
    "What is {}'s price?",
]


@given(st.sampled_from([*FORMS, "{}"]), SUBJECTS)
@example("When did the {} open?", "\n")
@example("When did the {} open\nits doors?", "Acme")
def test_rephrasings_keep_the_subject_and_differ(form, subject):
    prompt = form.replace("{}", subject)
    texts = rephrasings(prompt, subject)
    assert len({*texts, prompt}) == len(texts) + 1
    own = subject.casefold()  # "the" has a capital where it begins a text
    assert all(own in text.casefold() and text.strip() == text for text in texts if subject.strip() == subject)
