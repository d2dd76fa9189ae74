"""Irregular verbs and closed word classes of English, for the normalisation of relation phrases."""

from __future__ import annotations

__all__ = [
    "ADVERBS_OF_DEGREE",
    "BE",
    "DETERMINERS",
    "DO",
    "HAVE",
    "IRREGULAR",
    "NOT_PROGRESSIVE",
    "PREPOSITIONS",
]


def word_set(text: str) -> frozenset[str]:
    """Set of the words of a text."""
    return frozenset(text.split())


# base: past and participle forms. "found" is read as a form of find, "founded" as one of found.
_FORMS = """
abide abode|arise arose arisen|awake awoke awoken|bear bore borne|beat beaten|become became|begin began begun|
bend bent|bet|bind bound|bite bit bitten|bleed bled|blow blew blown|break broke broken|breed bred|bring brought|
build built|burn burnt|buy bought|cast|catch caught|choose chose chosen|cling clung|come came|cost|creep crept|cut|
deal dealt|die dying|dig dug|do did done does|draw drew drawn|dream dreamt|drink drank drunk|drive drove driven|dwell dwelt|
eat ate eaten|fall fell fallen|feed fed|feel felt|fight fought|find found|flee fled|fling flung|fly flew flown|
forbid forbade forbidden|forecast|forego forewent foregone|foresee foresaw foreseen|forget forgot forgotten|
forgive forgave forgiven|freeze froze frozen|get got gotten|give gave given|go went gone goes|grind ground|
grow grew grown|hang hung|have has had having|hear heard|hide hid hidden|hit|hold held|hurt|keep kept|
kneel knelt|know knew known|lay laid|lead led|leap leapt|learn learnt|leave left|lend lent|let|lie lain lying|
light lit|lose lost|make made|mean meant|meet met|mistake mistook mistaken|outdo outdid outdone|overcome overcame|
oversee oversaw overseen|overtake overtook overtaken|overthrow overthrew overthrown|pay paid|plead pled|
prove proven|put|quit|read|rebuild rebuilt|rend rent|ride rode ridden|ring rang rung|rise rose risen|run ran|
say said says|see saw seen|seek sought|sell sold|send sent|set|sew sewn|shake shook shaken|shed|shine shone|
shoot shot|show shown|shrink shrank shrunk|shut|sing sang sung|sink sank sunk|sit sat|slay slew slain|
sleep slept|slide slid|sow sown|speak spoke spoken|spend spent|spin spun|split|spread|spring sprang sprung|
stand stood|steal stole stolen|stick stuck|sting stung|stride strode|strike struck stricken|strive strove striven|
swear swore sworn|sweep swept|swell swollen|swim swam swum|swing swung|take took taken|teach taught|tear tore torn|
tell told|think thought|throw threw thrown|tie tying|tread trod trodden|undergo underwent undergone|
understand understood|undertake undertook undertaken|uphold upheld|wake woke woken|wear wore worn|
weave wove woven|weep wept|win won|withdraw withdrew withdrawn|withstand withstood|wring wrung|write wrote written
"""
IRREGULAR: dict[str, str] = {}
for _verb in _FORMS.replace("\n", "").split("|"):
    _base, *_past = _verb.split()
    IRREGULAR |= {_form: _base for _form in (_base, *_past)}

BE = word_set("be am is are was were been being 's 're 'm") - {"'s"}
HAVE = word_set("have has had having 've")
DO = frozenset(("do", "does", "did"))
DETERMINERS = frozenset(("a", "an", "the"))
# After a form of be these are adjectives or prepositions, not the progressive of a verb.
NOT_PROGRESSIVE = word_set(
    "according amazing boring charming concerning confusing corresponding demanding disappointing during encouraging "
    "exciting existing fascinating following going including interesting lacking leading living long-standing missing "
    "nothing ongoing opposing outstanding pending pleasing promising regarding remaining something striking surprising "
    "surrounding willing"
)
# "is not only a singer" asserts that somebody is a singer.
ADVERBS_OF_DEGREE = frozenset(("only", "just", "merely", "simply"))
PREPOSITIONS = word_set(
    "aboard about above across after against along alongside amid among around as at before behind below beneath "
    "beside besides between beyond by despite down during except for from in inside into like near of off on onto "
    "opposite out outside over past per regarding since than through throughout to toward towards under underneath "
    "until unto up upon versus via with within without"
)
