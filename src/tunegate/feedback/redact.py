"""What tells who somebody is, taken out of texts before they are kept: in Chinese and in English, by pattern.

Texts are read as NFKC has them, so that full-width digits are digits; what is not taken out stays as it was written.
No word boundaries are looked for: between 汉字 and digits there are none. What is found stands in docs/feedback.md.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache


@dataclass(frozen=True)
class Rule:
    """mark: what stands in place of what is found. needs: tells sooner, and by less, that there is none. pattern: its
    group `value`, or all of it. is_one: looks closer."""

    mark: str
    needs: Callable[[str], object]
    pattern: re.Pattern[str]
    is_one: Callable[[str], bool] = lambda found: True


def redact(text: str) -> str:
    """The text with a mark, such as <phone>, in place of each thing that tells who somebody is."""
    if "\\u" in text:
        text = _ESCAPE.sub(_unescaped, text)
    plain, kept, at = text if text.isascii() else text.translate(_one_by_one()), [], 0
    for start, end, mark in sorted(_found(plain), key=lambda span: (span[0], -span[1])):
        if start >= at:
            kept += [text[at:start], mark]
            at = end
        elif end > at:  # it begins within what was taken out and goes on
            at = end
    return "".join([*kept, text[at:]]) if kept else text


def _unescaped(escape: re.Match[str]) -> str:
    """JSON within a text says 汉字 by their codes, as Python writes it. What has a meaning in JSON stays as it is."""
    character = chr(int(escape[1], 16))
    is_plain = character.isalnum() or character in "@+" or (character >= "\u00a0" and not character.isspace())
    return character if is_plain and not "\ud800" <= character <= "\udfff" else escape[0]


def _found(plain: str) -> Iterator[tuple[int, int, str]]:
    needed: dict[Callable[[str], object], object] = {}
    for rule in RULES:
        if rule.needs not in needed:
            needed[rule.needs] = rule.needs(plain)
        if not needed[rule.needs]:
            continue
        for match in rule.pattern.finditer(plain):
            group = "value" if "value" in rule.pattern.groupindex else 0
            if rule.is_one(match[group]):
                yield match.start(group), match.end(group), rule.mark


@cache
def _one_by_one() -> dict[int, str]:
    """The characters that NFKC makes one ASCII character of: texts keep their length, so places stay the same."""
    ranges = (range(0x80, 0x10000), range(0x1D400, 0x1D800))
    found = {code: unicodedata.normalize("NFKC", chr(code)) for codes in ranges for code in codes}
    return {code: to for code, to in found.items() if len(to) == 1 and to.isascii()}


def _is_id_number(text: str) -> bool:
    """A Chinese resident's: 17 digits with a birthday and the check digit of GB 11643 (mod 11-2), or 15 of before."""
    digits = re.sub(r"[^0-9X]", "", text.upper())
    born = digits[6:14] if len(digits) == 18 else f"19{digits[6:12]}"
    try:
        date(int(born[:4]), int(born[4:6]), int(born[6:8]))
    except ValueError:
        return False
    if len(digits) == 15:
        return True
    total = sum(int(digit) * (1 << (17 - at)) for at, digit in enumerate(digits[:17]))
    return "10X98765432"[total % 11] == digits[17]


def _is_card(text: str) -> bool:
    """A bank card's: a network's first digits, its lengths, and the check digit (Luhn)."""
    digits = re.sub(r"[^0-9]", "", text)
    if not _NETWORKS.match(digits) or (len(digits) == 13 and digits.startswith("69")):  # a barcode of goods from China
        return False
    doubled = [int(digit) * (2 - at % 2) for at, digit in enumerate(reversed(digits), 1)]
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")
# UnionPay; Visa; Mastercard; American Express; JCB; Diners; Discover; Maestro.
_NETWORKS = re.compile(
    r"62\d{14,17}$|4(?:\d{12}|\d{15}|\d{18})$|5[1-5]\d{14}$|2[2-7]\d{14}$|3[47]\d{13}$|(?:35\d{14}|2131\d{11}|1800\d{11})$"
    r"|3(?:0[0-5]|[68]\d)\d{11}$|6(?:011|4[4-9]\d|5\d\d)\d{12}$|(?:50|5[6-9]|6[0-9])\d{10,17}$"
)
_GAP = r"[ \-‐-―·\u00a0\u200b]"
# Not a part of a longer number, of a price, or of a code such as TB13812345678.
_FROM, _TO = r"(?<![0-9A-Za-z])(?<![0-9][.,])", r"(?![0-9A-Za-z])(?![.,][0-9])"
_HAN = r"[\u4e00-\u9fff]"
# Right before a number: then it is one of an order, whatever it looks like.
_ORDER = (
    *(lead + colon for lead in ("单号", "单编号", "流水号") for colon in ("", ":", ": ", "是", " ")),
    *("order ", "Order ", "order no. ", "order: ", "Order: ", "#"),
)
_NO_ORDER = "".join(rf"(?<!{word})" for word in _ORDER)
_PROVINCE_NAME = (
    "(?:北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|"
    "陕西|甘肃|青海|台湾|内蒙古|广西(?:壮族)?|西藏|宁夏(?:回族)?|新疆(?:维吾尔)?|香港|澳门)"
)
_PROVINCE = rf"{_PROVINCE_NAME}(?:省|市|自治区|特别行政区)?"
_TWO = "欧阳|司马|上官|诸葛|司徒|东方|皇甫|尉迟|公孙|慕容|夏侯|令狐"
_SURNAME = (
    "[王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜"
    "范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦申尤毕聂"
    "丛焦向柳邢路岳齐梅莫庄辛管祝左涂谷祁时舒耿牟卜路詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄单包司柏宁柯阮桂闵解强柴华车冉房边]"
)
_PLACE = rf"{_HAN}{{1,8}}?(?:市|县|区|州|盟|旗)"
_ROAD = rf"{_HAN}{{1,12}}?(?:路|街|道|巷|弄|胡同|村|镇|乡|小区|花园|大厦|广场|苑|园|里)"
_DOOR = r"(?:[A-Za-z0-9零一二三四五六七八九十百甲乙丙丁\-]{1,8} ?(?:号楼|号院|号|栋|幢|座|室|单元|楼|层|弄|户|门))"
_ROAD_AND_DOORS = rf"(?:{_ROAD}){{1,2}}{_DOOR}(?:{_DOOR}){{0,4}}(?: ?\d{{6}}(?!\d))?"


def _any_of(*words: str) -> Callable[[str], bool]:
    return lambda text: any(word in text for word in words)


_MAIL, _DIGITS = _any_of("@"), re.compile(r"\d(?:.{0,2}?\d){6}").search
_CHINESE_DOOR, _ENGLISH_DOOR = (
    _any_of(*"号栋幢座室单楼层弄户门"),
    re.compile(r"\d (?:[A-Z]|\d{1,3}(?:st|nd|rd|th) )").search,
)
_ADDRESS_CUE, _CHINESE_NAME_CUE = _any_of("地址", "住址"), _any_of("件人", "货人", "系人", "姓名", "我叫", "名字")
_NAME_CUE = _any_of("name", "Name", "ecipient", "ttn", "iver to", "hip to")

RULES = (
    Rule(
        "<email>",
        _MAIL,
        re.compile(r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9._%+\-]{1,64} ?@ ?(?:[A-Za-z0-9\-]{1,63}\.){1,5}[A-Za-z]{2,24}"),
    ),
    Rule(
        "<id-number>",
        _DIGITS,
        re.compile(rf"{_FROM}{_NO_ORDER}\d{{6}}{_GAP}?(?:\d{{8}}{_GAP}?\d{{3}}[0-9Xx]|\d{{9}}){_TO}"),
        _is_id_number,
    ),
    # the number of social security in the United States
    Rule("<id-number>", _DIGITS, re.compile(rf"{_FROM}(?!000|666|9)\d{{3}}-\d{{2}}-\d{{4}}{_TO}")),
    Rule("<card>", _DIGITS, re.compile(rf"{_FROM}{_NO_ORDER}\d(?:{_GAP}?\d){{11,18}}{_TO}"), _is_card),
    Rule(
        "<phone>",
        _DIGITS,
        re.compile(
            rf"{_FROM}{_NO_ORDER}(?:(?:\+|00)?86{_GAP}?|\(\+?86\){_GAP}?)?(?:1[3-9]\d{_GAP}?\d{{4}}{_GAP}?\d{{4}}|"
            rf"1[3-9]\d\.\d{{4}}\.\d{{4}}|1[3-9]\d{_GAP}\d{{3}}{_GAP}\d{{5}}|1([ \-])[3-9](?:\1\d){{9}}){_TO}"
        ),
    ),
    Rule(  # with its area, in China
        "<phone>",
        _DIGITS,
        re.compile(rf"{_FROM}{_NO_ORDER}(?:\(0\d{{2,3}}\){_GAP}?|0\d{{2,3}}{_GAP})[2-9]\d{{2,3}}{_GAP}?\d{{4}}{_TO}"),
    ),
    Rule(  # in any country
        "<phone>",
        _DIGITS,
        re.compile(
            rf"(?<![0-9A-Za-z+])\+\d{{1,3}}(?:{_GAP}|\.)?(?:\(?\d{{1,4}}\)?(?:{_GAP}|\.)?){{2,5}}\d{{2,4}}{_TO}"
        ),
    ),
    Rule(  # in North America
        "<phone>",
        _DIGITS,
        re.compile(rf"{_FROM}(?:\([2-9]\d{{2}}\) ?|[2-9]\d{{2}}[\-.])\d{{3}}[\-.]\d{{4}}{_TO}"),
    ),
    Rule("<address>", _CHINESE_DOOR, re.compile(rf"{_PROVINCE}(?:{_PLACE}){{0,3}}{_ROAD_AND_DOORS}")),
    Rule(
        "<address>",
        _CHINESE_DOOR,
        re.compile(
            rf"(?<!{_HAN})(?:[请我麻烦]{{0,3}}(?:寄到|送到|送往|寄往|住在|在|发到))?(?!{_HAN}{{0,8}}?{_PROVINCE_NAME})"
            rf"(?P<value>(?:{_PLACE}){{1,3}}{_ROAD_AND_DOORS})"
        ),
    ),
    Rule("<address>", _ADDRESS_CUE, re.compile(r"(?:地址|住址)(?:是|为)?[: ]{0,2}(?P<value>[^\s,。.;!?、<>]{4,60})")),
    Rule(
        "<address>",
        _ENGLISH_DOOR,
        re.compile(
            r"(?<![0-9A-Za-z])\d{1,6}(?:-\d{1,4})? (?:[NSEW]\.? )?"
            r"(?:[A-Z][A-Za-z'.]{0,20} |\d{1,3}(?:st|nd|rd|th) ){1,4}"
            r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Square|Sq|Terrace|"
            r"Parkway)(?![A-Za-z])\.?"
            r"(?:,? (?:Apt|Apartment|Unit|Suite|Ste|#)\.? ?[0-9A-Za-z\-]{1,6})?"
        ),
    ),
    Rule(
        "<name>",
        _CHINESE_NAME_CUE,
        re.compile(
            rf"(?:收件人|收货人|联系人|姓名)(?:叫|是|为)?[: ]{{0,2}}"
            rf"(?P<value>(?:{_TWO}){_HAN}{{1,2}}|{_HAN}(?:·?{_HAN}){{1,2}})"
        ),
    ),
    Rule(
        "<name>",
        _CHINESE_NAME_CUE,
        re.compile(
            rf"(?:我叫|我的名字(?:叫|是)|名字叫)[: ]{{0,2}}(?P<value>(?:{_TWO}){_HAN}{{1,2}}|{_SURNAME}{_HAN}{{1,2}})"
        ),
    ),
    Rule(
        "<name>",
        _NAME_CUE,
        re.compile(
            r"(?:[Mm]y name is|[Nn]ame: ?|[Rr]ecipient: ?|[Aa]ttn:? ?|[Dd]eliver to|[Ss]hip to) ?"
            r"(?P<value>[A-Z][A-Za-z'\-]{1,20}(?: [A-Z](?:\.|[A-Za-z'\-]{0,20})){0,3})"
        ),
    ),
)
"""What is found by two rules gets the mark of the one that begins first, or is longer."""
