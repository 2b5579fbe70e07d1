"""The string formats we know, as regexes of the string's content; knows nothing of schemas.

A format is a tuple of regexes, all of which the whole content matches. Formats that are not here
are annotations, as the specification lets them be.
"""

from typing import Final

_YEAR: Final = r"(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP_YEAR: Final = r"([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE: Final = (
    rf"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    rf"|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_CLOCK: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME: Final = rf"{_CLOCK}:[0-5][0-9](\.[0-9]{{1,9}})?(Z|[+-]{_CLOCK})"
_TIMES: Final = r"T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S)"
_DAYS: Final = r"([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)"

_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = rf"{_LABEL}(\.{_LABEL})*"
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_OCTET: Final = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rf"{_OCTET}(\.{_OCTET}){{3}}"
_HEX: Final = r"[0-9A-Fa-f]"
_H16: Final = rf"{_HEX}{{1,4}}"
_LS32: Final = rf"({_H16}:{_H16}|{_IPV4})"
_IPV6: Final = "|".join(
    [
        rf"({_H16}:){{6}}{_LS32}",
        rf"::({_H16}:){{5}}{_LS32}",
        *(
            rf"({_H16}(:{_H16}){{0,{before}}})?::({_H16}:){{{4 - before}}}{_LS32}"
            for before in range(5)
        ),
        rf"({_H16}(:{_H16}){{0,5}})?::{_H16}",
        rf"({_H16}(:{_H16}){{0,6}})?::",
    ]
)


def _uris(letters: str) -> tuple[str, str]:
    """A URI, and one that may be relative (RFC 3986). letters: what is allowed besides ASCII."""
    percent = rf"%{_HEX}{{2}}"
    unreserved = rf"A-Za-z0-9._~{letters}\-"
    marks = r"!$&'()*+,;="
    char = rf"([{unreserved}{marks}:@]|{percent})"
    segments = rf"(/{char}*)*"
    tail = rf"(\?({char}|[/?])*)?(#({char}|[/?])*)?"
    host = rf"(\[({_IPV6})\]|([{unreserved}{marks}]|{percent})*)"
    authority = rf"(([{unreserved}{marks}:]|{percent})*@)?{host}(:[0-9]*)?"
    rooted = rf"//{authority}{segments}|/({char}+{segments})?"
    no_colon = rf"([{unreserved}{marks}@]|{percent})+"
    absolute = rf"[A-Za-z][A-Za-z0-9+.-]*:({rooted}|{char}+{segments}|){tail}"
    relative = rf"({rooted}|{no_colon}{segments}|){tail}"
    return absolute, rf"({absolute}|{relative})"


_URI, _URI_REFERENCE = _uris("")
_IRI, _IRI_REFERENCE = _uris("\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef\U00010000-\U0001fffd")
_VARIABLE: Final = rf"([A-Za-z0-9_]|%{_HEX}{{2}})+(\.([A-Za-z0-9_]|%{_HEX}{{2}})+)*"
_VARIABLES: Final = rf"{_VARIABLE}(:[1-9][0-9]{{0,3}}|\*)?"
_URI_TEMPLATE: Final = (
    rf"([!#$&(-;=?-\[\]_a-z~]|%{_HEX}{{2}}|\{{[+#./;?&]?{_VARIABLES}(,{_VARIABLES})*\}})*"
)
_POINTER: Final = r"(/([^~/]|~[01])*)*"
# Only expressions whose groups do not nest: what nests cannot be matched by a regex.
_ESCAPE: Final = r"\\[dDwWsSbBtnrfv.*+?^${}()|\[\]/\\-]"
_RANGE: Final = r"a-z|A-Z|0-9|a-f|A-F|[a-m]-[n-z]|[A-M]-[N-Z]|[0-4]-[5-9]"
_CLASS: Final = rf"\[\^?({_RANGE}|[^\\\[\]^-]|{_ESCAPE})+-?\]"
_TIMES_OF: Final = r"([*+?]\??|\{[0-9]\}|\{[0-9],\})?"
_PIECE: Final = rf"([^\\\[\]{{}}()*+?|^$]|{_ESCAPE}|{_CLASS}){_TIMES_OF}"
_REGEX: Final = (
    rf"\^?({_PIECE}|\(({_PIECE})+(\|({_PIECE})+)*\){_TIMES_OF})*"
    rf"(\|({_PIECE})+)*\$?"
)

FORMATS: Final[dict[str, tuple[str, ...]]] = {
    "date": (_DATE,),
    "time": (_TIME,),
    "date-time": (rf"{_DATE}T{_TIME}",),
    "duration": (rf"P({_DAYS}({_TIMES})?|{_TIMES}|[0-9]+W)",),
    "email": (rf"{_ATOM}(\.{_ATOM})*@{_HOST}", r"[^@]{1,64}@.{1,253}"),
    "hostname": (_HOST, r".{1,253}"),
    "ipv4": (_IPV4,),
    "ipv6": (_IPV6,),
    "uri": (_URI,),
    "uri-reference": (_URI_REFERENCE,),
    "iri": (_IRI,),
    "iri-reference": (_IRI_REFERENCE,),
    "uri-template": (_URI_TEMPLATE,),
    "uuid": (rf"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}",),
    "json-pointer": (_POINTER,),
    "relative-json-pointer": (rf"(0|[1-9][0-9]*)(#|{_POINTER})",),
    "regex": (_REGEX,),
}
