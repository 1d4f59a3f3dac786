"""A thousand sentences, and what goes with each."""

ANIMALS = ("cat", "dog", "horse", "bird", "fish", "cow", "goat", "mouse", "sheep", "duck")
VERBS = ("sees", "eats", "likes", "finds", "wants", "makes", "takes", "gives", "keeps", "loses")
THINGS = ("house", "tree", "river", "stone", "bread", "apple", "cloud", "road", "hat", "boat")


def sentence(number: int) -> str:
    """The `number`-th of a thousand distinct sentences."""
    hundreds, tens, ones = number // 100 % 10, number // 10 % 10, number % 10
    return f"the {ANIMALS[hundreds]} {VERBS[tens]} a {THINGS[ones]}"


def answer(number: int) -> str:
    """What goes with `sentence(number)`."""
    hundreds, tens, ones = number // 100 % 10, number // 10 % 10, number % 10
    return f"a {THINGS[ones]} and the {ANIMALS[hundreds]} that {VERBS[tens]}"
