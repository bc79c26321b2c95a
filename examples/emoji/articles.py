"""The article that a name takes in a sentence: a, an, the, or none. Knows English, and no captions.

Its rules are for short names of things; where they are in doubt, a name stays bare, which reads as a keyword does.
"""

import re

A_BY_SOUND = re.compile(r"(uni(?!d|m|n)|eu|ew|one\b|use|ufo|uku)")  # written with a vowel, said with a consonant
AN_BY_SOUND = re.compile(r"(hour|honest|heir|x-)")
THE = re.compile(r"(flag of|statue of|milky way|tokyo tower|kaaba\b)")
PERSON = re.compile(r"(\S+ )?(person|man|woman|boy|girl)\b(?!’s)")  # "a person lifting weights" holds a plural and is none
PEOPLE = re.compile(r"(people|men|women|children)\b")
AFTER_HEAD = re.compile(r",| (with|without|of|in|on|at|behind|over|under|showing|facing)\b.*")  # of "nest with eggs" the head is "nest"
PLURAL = re.compile(r"(?<![su])s$")  # "glasses", and not "glass" or "bus"
SINGULAR = re.compile(r"(rhinoceros|lens|series)$")
# Names whose head is no thing that is counted: what is done, what is said of a thing, materials, and names of persons.
BARE = re.compile(
    r"rolling on the floor laughing|star-struck|dizzy|dashing away|breast-feeding|horse racing|building construction|locked|unlocked|"
    r"locked with pen|locked with key|foggy|cooking|camping|construction|bowling|field hockey|ice hockey|lacrosse|ping pong|badminton|"
    r"high voltage|pouring liquid|dna|zzz|santa claus|mrs\. claus|mx claus|mount fuji|broccoli|garlic|leafy green|coral|wood|yarn|"
    r"thread|bread|baguette bread|flatbread|stuffed flatbread|bacon|butter|salt|popcorn|spaghetti|sushi|sake|cooked rice|curry rice|"
    r"oden|canned food|meat on bone|fondue|ice|shaved ice|soap|nail polish|fire|fog|performing arts"
)


def with_article(name: str) -> str:
    """ "red apple" as "a red apple", "flag of Japan" as "the flag of Japan", and "grapes" as it is."""
    lower = name.lower()
    if THE.match(lower):
        return f"the {name}"
    if _is_bare(lower):
        return name
    an = AN_BY_SOUND.match(lower) or (lower[0] in "aeiouåéö" and not A_BY_SOUND.match(lower))
    return f"{'an' if an else 'a'} {name}"


def _is_bare(lower: str) -> bool:
    head = AFTER_HEAD.sub("", lower)
    if BARE.fullmatch(lower) or PEOPLE.match(lower):
        return True
    return bool(PLURAL.search(head) and not SINGULAR.search(head) and not PERSON.match(lower))
