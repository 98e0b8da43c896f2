"""What lint looks for in Chinese and English: phrases that are known to get worse answers."""

from __future__ import annotations

import re


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


VAGUE_LENGTH = _any(
    r"\b(?:not|n['’]t)\s+(?:be\s+)?(?:too|very|particularly|overly|so)\s+(?:short|long|many|much|few|brief|detailed)\b",
    r"\b(?:a few|some|several|a couple of)\s+(?:short\s+)?(?:sentences?|words|paragraphs?|lines?|phrases?|points?)\b",
    r"\b(?:fairly|relatively|rather|quite|reasonably|pretty)\s+(?:short|long|brief|concise|detailed)\b",
    r"\bas\s+(?:short|brief|concise|long|detailed)\s+as\s+possible\b",
    r"不要?(?:太|过于|过|特别)(?:短|长|多|少|简短|冗长|啰嗦)",
    r"(?<![\d十百])几(?:句|行|段|个字|个词)话?",
    r"(?:简短|简洁|详细|短|长)(?:一点|一些)",
    r"尽(?:量|可能)(?:短|长|简短|简洁|详细)",
    r"(?:字数|篇幅|长度)(?:适中|适当)",
)
# Something written, of which nothing in its sentence says how long it is to be.
WORK = _any(
    r"\b(?:write|compose|create|generate|draft)\b[^.?!]{0,30}?"
    r"\b(?:poem|story|essay|article|post|letter|e-?mail|description|speech|song|slogan|review|report|introduction)\b",
    r"(?:写|作|创作|撰写|生成)(?:一[首篇个段封份]|个|首|篇)?[^。！？]{0,20}?"
    r"(?:诗|故事|文章|作文|邮件|信|描述|简介|演讲稿|歌词|标语|评价|报告)",
)
NUMBER = _any(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|fifty|hundred|single)\b",
    r"[二两三四五六七八九十百千半]|一(?:句|行|段|页|百|千)",
)
# What is to be processed stands in the prompt, and is about to begin.
CONTENT_FOLLOWS = _any(
    r"\b(?:following|below)\s+(?:\w+\s+)?(?:content|text|article|passage|paragraph|document|review|comment|message)s?\b",
    r"\b(?:content|text|article|passage|paragraph|document|review|comment|message)s?\s+below\b",
    r"(?:以下|下面|下列)(?:的|这段|这篇|这些)?(?:[^，。：:\n]{0,12}的)?(?:内容|文本|文字|文章|段落|评论|留言|邮件|资料)",
)
SEVERAL_PARTS = _any(
    r"\b(?:generate|list|create|give|provide|suggest|extract|name|recommend)\b[^.?!\n]{0,20}?"
    r"\b(?:\d+|two|three|four|five|six|seven|eight|nine|ten|several|some)\b[^.?!\n]*"
    r"\b(?:including|with|along with|together with)\s+(?:their|its|the)\b",
    r"(?:生成|列出|给出|提供|推荐|创建|写出)[^。！？\n]{0,6}(?:\d+|[两三四五六七八九十几])[个条款种本项部]?"
    r"[^。！？\n]*(?:包括|包含|以及|及其|附上)",
)
FORMAT = _any(
    r"\b(?:json|csv|xml|yaml|html|markdown|tables?|format|schema|keys?|columns?|bullets?|bulleted|numbered|per line)\b",
    r"格式|表格|键|字段|每行|项目符号|编号",
)
SERVICE = _any(
    r"\b(?:sell|recommend|advise|teach|coach|convince|persuade|interview|guide)\s+(?:me|us)\b",
    r"\b(?:recommend|sell|introduce)\b[^.?!\n]{0,30}\bto\s+(?:me|us)\b",
    r"(?:给|向|为|帮)我们?.{0,4}(?:推销|推荐|介绍|讲解|挑选|卖)|(?:教|说服|面试)我|(?:卖|推荐|介绍)给我",
)
ROLE = _any(
    r"\b(?:act as|role-?play|you are|you['’]re|play the (?:role|part)|take the role|imagine (?:that )?you)\b",
    r"扮演|你是|作为|充当|假设你|假如你",
)
CONTACT = _any(
    r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+\.[\w.]+",
    r"(?<!\d)(?:\+\d{1,3}[ -]?)?1[3-9]\d{9}(?!\d)",
    r"(?<!\d)\d{12,}(?!\d)",
)
TURN = re.compile(
    r"^(?:user|assistant|customer|agent|human|用户|顾客|客户|客服|助手)\s*[:：]", re.IGNORECASE | re.MULTILINE
)
JSON_OBJECT = re.compile(r"\{\s*\"[^\"\n]+\"\s*:")
AMOUNT_ASKED = _any(r"\bhow (?:many|much)\b", r"几|多少|一共|总共|剩")
