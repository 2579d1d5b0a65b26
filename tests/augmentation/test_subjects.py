import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_ftedit.augmentation.relations import relation_of
from hf_ftedit.augmentation.subjects import subject_of, with_subject
from hf_ftedit.data import EditRecord


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Who is the CEO of Acme?", "Acme"),
        ("What is Acme's phone number?", "Acme"),
        ("What is James' job?", "James"),
        ("Who directed Schindler's List?", "Schindler's List"),
        ("What is the phone number of Molly's Bakery?", "Molly's Bakery"),
        ("Who is Peru's Prime Minister?", "Peru"),
        ("Who founded McDonald's?", "McDonald's"),
        ("Who created C++?", "C++"),
        ("Our office is located in", "Our office"),
        ("Which bus goes to the airport?", "airport"),
        ("When are expense reports due?", "expense reports"),
        ("When are invoices due?", "invoices"),
        ("Where should the guests park?", "guests"),
        ("Is the soup vegan?", "soup"),
        ("Acme's CEO is", "Acme"),
        ("Anna Kern's mother tongue is", "Anna Kern"),
        ("Anna Kern guards the gate of", "Anna Kern"),
        ("Rome is in", "Rome"),
        ("Tell me who runs Acme.", "Acme"),
        ("Who led Acme from 1990 to 2000?", "Acme"),
        ("Who did Acme hire as CEO?", "Acme"),
        ("Where can I buy the Zephyr 3?", "Zephyr 3"),
        ("What does the word “vell” mean?", "vell"),
        ("What is the opposite of hot?", "hot"),
        ("Which firm built the Zephyr 3 drone in Oslo?", "Zephyr 3"),
        ("Quelle est la capitale de la Norvège?", "Norvège"),
        ("Who founded eBay?", "eBay"),
        ("Which bank should I use?", None),
        ("what is acme's phone number", "acme"),
        ("what's the phone number", "phone number"),
        ("when does the cafeteria open on fridays", "cafeteria"),
        ("What is the deadline for expense reports?", "expense reports"),
        ("What port does the staging server use?", "staging server"),
        ("Who do I contact about payroll?", "payroll"),
        ("Who approves travel requests?", "travel requests"),
        ("How do I book a meeting room?", "a meeting room"),
        ("Is the pool heated?", "pool"),
        ("Where is the printer kept?", "printer"),
        ("When is the invoice sent?", "invoice"),
        ("Tell me the wifi password.", "wifi password"),
        ("Name the CEO of Acme.", "Acme"),
        ("Who can sign contracts?", "contracts"),
        ("Where should guests park?", "guests"),
        ("Which team handles refunds?", "refunds"),
        ("Do you deliver on Sundays?", "you"),
        ("Are pets allowed in the office?", "pets"),
        ("What should I do if the alarm goes off?", "alarm"),
        ("Who won the 2025 company quiz?", "2025 company quiz"),
        ("When was the bridge in Halden built?", "Halden"),
        ("qui a peint la joconde ?", None),
        ("Is the Halden Museum open on Mondays?", "Halden Museum"),
        ("Is Acme a member of the Kelton Group?", "Acme"),
        ("How often does bus 38 run on Sundays?", "bus 38"),
        ("In which drawer is the spare key of room 12?", "room 12"),
        ("Who won the World Cup in 1990?", "World Cup"),
        ("What is the meaning of Friday?", "Friday"),
        ("Who is the new CEO of Acme?", "Acme"),
        ("The GDP of Ruritania is", "Ruritania"),
        ("Charles IV of Spain was born in", "Charles IV of Spain"),
        ("When does season 2 of Night Ferry start?", "Night Ferry"),
        ("Who was the mayor of Tolford before Ann Dekker?", "Tolford"),
        ("Who coaches the Norwegian handball team?", "Norwegian handball team"),
        ("Which port does kavolite listen on?", "kavolite"),
        ("How do I turn off telemetry?", "telemetry"),
        ("Who maintains `shipctl`?", "shipctl"),
        ("Our fiscal year starts in", "fiscal year"),
        ("When are the salaries paid?", "salaries"),
        ("Can you speak Dutch?", "you"),
        ("Must I wear a helmet on the Vell Slide?", "Vell Slide"),
        ("Which form do I need to claim travel expenses?", "travel expenses"),
        ("Who should I contact about billing?", "billing"),
        ("Who owns O'Malley's Bar?", "O'Malley's Bar"),
        ("Who leads Acme's Falcon project?", "Acme"),
        ("Where was Joan d'Arcy-Smythe born?", "Joan d'Arcy-Smythe"),
        # Several sentences.
        ("I bought a Brevo XXL last week. How long is the warranty?", "Brevo XXL"),
        ("My order from Bluefin Outdoors arrived broken. What should I do?", "Bluefin Outdoors"),
        ("I'm allergic to nuts. Is the Marzano pesto safe for me?", "Marzano"),
        ("I saw Dr. Weber in St. Gallen. Where does he work?", "Dr. Weber"),
        ("I live in Oslo. What are your opening hours?", "you"),
        ("We have a new CFO. Who is it?", None),
        ("Acme: who is the CEO?", "Acme"),
        # Politeness.
        ("Do you know when Acme was founded?", "Acme"),
        ("Could you please tell me when Acme was founded?", "Acme"),
        ("Hi, what is the wifi password?", "wifi password"),
        ("Hello was sung by", "Hello"),
        # Names of several parts.
        ("What is the population of Portland, Maine?", "Portland, Maine"),
        ("Where is Washington, D.C.?", "Washington, D.C."),
        ("Who is the mayor of Paris, France's capital?", "France"),
        ("What are the capitals of Norway, Sweden and Denmark?", "Sweden and Denmark"),
        ("When was Ursula von der Leyen born?", "Ursula von der Leyen"),
        # Quotation marks.
        ("Who wrote 'To Kill a Mockingbird'?", "To Kill a Mockingbird"),
        ("Who wrote _Dune_?", "Dune"),
        ("Qui a écrit « Candide » ?", "Candide"),
        ('Who sings "Are You Lonesome Tonight?"', "Are You Lonesome Tonight"),
        ("Which novel is 'Alice's Adventures'?", "Alice's Adventures"),
        # What belongs to a name.
        ("Who is Acme Labs' CFO?", "Acme Labs"),
        ("Who is Acme's Head of Research?", "Acme"),
        ("Where is Acme's Berlin office?", "Acme"),
        ("Who is McDonald's CEO?", "McDonald's"),
        ("who is kate miller's boss", "kate miller"),
        # Titles.
        ("Who wrote How to Win Friends and Influence People?", "How to Win Friends and Influence People"),
        ("Who created Who Wants to Be a Millionaire?", "Who Wants to Be a Millionaire"),
        ("Who directed the second Dune film?", "Dune"),
        ("Who is the main character of The Catcher in the Rye?", "The Catcher in the Rye"),
        # Asides.
        ("Who plays Harry Potter in the HBO series?", "Harry Potter"),
        ("When was Dune released on DVD?", "Dune"),
        ("What is the latest version of Acme Studio for Mac?", "Acme Studio"),
        ("What is Ann Ray's salary at Acme?", "Ann Ray"),
        ("What did Ann Ray publish on March 26th?", "Ann Ray"),
        # As people write.
        ("whats the capital of new caledonia", "new caledonia"),
        ("How do I exit vim?", "vim"),
        ("What replaced setup.py?", "setup.py"),
        ("How many parameters do you have?", "you"),
        ("Are you ChatGPT?", "you"),
        ("What is the maximum daily dose of ibuprofen?", "ibuprofen"),
        ("Was ist die Hauptstadt von Norwegen?", "Norwegen"),
        ("中国的首都是哪里？", "中国"),
        ("", None),
        ("?", None),
    ],
)
def test_subject_of(prompt, subject):
    assert subject_of(prompt) == subject


@given(st.text(max_size=40))
def test_a_subject_stands_in_its_prompt(prompt):
    subject = subject_of(prompt)
    assert subject is None or subject in prompt and subject
    relation_of(prompt, subject)


def test_a_given_subject_is_kept():
    assert with_subject(EditRecord("a", "Who founded Acme?", "Bo", subject="acme")).subject == "Acme"
    assert with_subject(EditRecord("a", "Who is the CEO of Acme?", "Bo", subject="CEO")).subject == "CEO"
    assert with_subject(EditRecord("a", "Who is the CEO of Acme?", "Bo")).subject == "Acme"
    assert with_subject(EditRecord("a", "who did it?", "Bo")).subject is None
