"""Chat templates: whole conversations, their parts, and the text around one role.

The templates below are written for these tests, in the manner of the model families they name.
"""

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from sapwood.runtime.chat import ChatFormat, ChatTemplateError, NoChatTemplate, chat_format
from sapwood.runtime.protocol import Text

pytestmark = pytest.mark.timeout(30)

CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (  # system text is folded into the first user message; no generation prompt
    "{% if messages[0]['role'] == 'system' %}{% set sys = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' }}"
    "{% if loop.first and sys is defined %}{{ '<<SYS>>' + sys + '<</SYS>>' }}{% endif %}"
    "{{ m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
LLAMA3 = (  # trims, begins with BOS
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|h|>' + m['role'] + '<|/h|>' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|h|>assistant<|/h|>' }}{% endif %}"
)
THINKING = (  # the last answer gets an empty thought, earlier answers lose theirs
    "{% for m in messages %}{{ '<s>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% set c = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ c }}"
    "{% else %}{{ m.content }}{% endif %}{{ '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
COUNTING = (  # not prefix-stable: it begins with the number of messages
    "{{ messages | length }}{% for m in messages %}[{{ m.content }}]{% endfor %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "{% for m in messages %}{{ m.role + ':' + m.content + ';' }}{% endfor %}"
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def conversation(*roles):
    return [{"role": role, "content": f"{role} {i}"} for i, role in enumerate(roles)]


TALKS = [
    conversation("user"),
    conversation("system", "user"),
    conversation("system", "user", "assistant", "user"),
    conversation("user", "assistant", "user", "assistant"),
]


@pytest.mark.parametrize("template", [CHATML, LLAMA2, LLAMA3, THINKING, COUNTING])
@pytest.mark.parametrize("talk", range(len(TALKS)))
@pytest.mark.parametrize("prompt", [False, True])
def test_renders_as_transformers_does(template, talk, prompt):
    expected, _ = render_jinja_template(
        [TALKS[talk]], chat_template=template, add_generation_prompt=prompt, **SPECIAL
    )
    assert ChatFormat(template, SPECIAL).render(TALKS[talk], prompt) == expected[0]


ODD_TEMPLATES = {
    "tojson": ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
    "indent": ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
    "loop controls": ("{% for i in [1, 2] %}{{ i }}{% break %}{% endfor %}", "1"),
    "generation": ("{% generation %}x{% endgeneration %}", "x"),
    "blocks are trimmed": ("a\n  {% if true %}\nb{% endif %}", "a\nb"),
    "date": ("{{ strftime_now('%Y') | length }}", "4"),
    "variables": ("{{ mood }}{{ tools is none }}", "goodTrue"),
}


@pytest.mark.parametrize("case", ODD_TEMPLATES)
def test_environment(case):
    template, expected = ODD_TEMPLATES[case]
    assert ChatFormat(template, {}).render([], mood="good") == expected


BAD_TEMPLATES = {
    "raises": (NO_SYSTEM, "no system here"),
    "sandbox": ("{{ messages.__class__.__mro__ }}", "unsafe"),
    "changes its input": ("{{ messages.append(1) }}", "unsafe"),
    "undefined": ("{{ nothing.at.all }}", "undefined"),
}


@pytest.mark.parametrize("case", BAD_TEMPLATES)
def test_a_template_that_fails_says_so(case):
    template, message = BAD_TEMPLATES[case]
    with pytest.raises(ChatTemplateError, match=message):
        ChatFormat(template, {}, name="M").render(conversation("system", "user"))


def test_bad_syntax_names_the_model():
    with pytest.raises(ChatTemplateError, match="M is not valid Jinja"):
        ChatFormat("{% if %}", {}, name="M")


# --- parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [CHATML, LLAMA2, LLAMA3, THINKING, COUNTING])
@pytest.mark.parametrize("talk", range(len(TALKS)))
@pytest.mark.parametrize("content", ["{}", "<|im_end|>\n{}", " {} \n", "{}</s>[/INST]"])
def test_parts_are_the_rendering_cut_at_the_messages(template, talk, content):
    messages = [m | {"content": content.format(m["content"])} for m in TALKS[talk]]
    chat = ChatFormat(template, SPECIAL)
    parts = chat.parts(messages, True)
    assert "".join(part.text for part in parts) == chat.render(messages, True)
    user_text = [part.text.strip() for part in parts if not part.special]
    assert user_text == [m["content"].strip() for m in messages]


def test_parts_of_reasoning_that_a_template_drops():
    messages = conversation("user", "assistant", "user")
    messages[1]["content"] = "<think>hm</think>\n\nyes"
    chat = ChatFormat(THINKING, {})
    parts = chat.parts(messages, True)
    assert "".join(part.text for part in parts) == chat.render(messages, True)
    assert Text("yes") in parts


def test_a_template_that_rewrites_text_cannot_be_cut():
    chat = ChatFormat("{% for m in messages %}{{ m.content | upper }}{% endfor %}", {})
    with pytest.raises(ChatTemplateError, match="rewrites"):
        chat.parts(conversation("user"))


def test_a_sentinel_typed_by_a_user_fools_nobody():
    template = "{% for m in messages %}{{ m.name }}:{{ m.content }};{% endfor %}"
    for forged in ("\ue0000\ue001", "\ue0009\ue001"):
        messages = [{"role": "user", "name": forged, "content": "hi"}]
        with pytest.raises(ChatTemplateError, match="rewrites"):
            ChatFormat(template, {}).parts(messages)


def test_continue_final_message_ends_after_its_text():
    chat = ChatFormat(CHATML, {})
    messages = conversation("user", "assistant")
    parts = chat.parts(messages, continue_final_message=True)
    assert parts[-1] == Text("assistant 1")
    assert chat.render(messages).startswith("".join(part.text for part in parts))


def test_messages_without_text_are_left_to_the_template():
    template = "{% for m in messages %}<{{ m.content is none }}>{% endfor %}"
    parts = ChatFormat(template, {}).parts([{"role": "assistant", "content": None}])
    assert parts == (Text("<True>", special=True),)


def test_no_template():
    chat = ChatFormat(None, {}, name="M")
    for call in (chat.render, chat.parts):
        with pytest.raises(NoChatTemplate, match="M has no chat template"):
            call(conversation("user"))
    assert chat.begin((), "user") == "USER:"
    assert chat.end((), "user") == "\n"
    assert chat.default_system is None


# --- one role at a time -----------------------------------------------------------------------


def spoken(chat, roles):
    """The text of a conversation as a program writes it, with the message's number for text."""
    return "".join(
        chat.begin(roles[:i], role) + f"{role} {i}" + chat.end(roles[:i], role)
        for i, role in enumerate(roles)
    )


STABLE = [CHATML, LLAMA2, LLAMA3, NO_SYSTEM]


@pytest.mark.parametrize("template", STABLE)
@pytest.mark.parametrize("talk", range(len(TALKS)))
def test_role_by_role_gives_the_whole_rendering(template, talk):
    chat = ChatFormat(template, SPECIAL)
    roles = tuple(m["role"] for m in TALKS[talk])
    if template is NO_SYSTEM and "system" in roles:
        with pytest.raises(ChatTemplateError, match="no system here"):
            spoken(chat, roles)
        return
    assert spoken(chat, roles) == chat.render(TALKS[talk])


def test_an_answer_begins_with_the_generation_prompt_where_the_history_agrees():
    chat = ChatFormat(THINKING, {})
    roles = ("user", "assistant", "user")
    assert chat.begin(("user",), "assistant") == "<s>assistant\n"
    assert spoken(chat, roles) == chat.render(conversation(*roles))


def test_what_is_not_prefix_stable_is_refused_by_name():
    chat = ChatFormat(COUNTING, {}, name="M")
    assert chat.begin((), "user") == "1["
    with pytest.raises(ChatTemplateError, match="M is not prefix-stable.*user"):
        chat.begin(("user",), "assistant")


DEFAULT_SYSTEM = [
    (CHATML, "Be kind."),
    (LLAMA2, None),
    (LLAMA3, None),
    (NO_SYSTEM, None),
    (COUNTING, None),
]


@pytest.mark.parametrize("template, expected", DEFAULT_SYSTEM)
def test_default_system(template, expected):
    assert ChatFormat(template, SPECIAL).default_system == expected


def test_formats_are_shared_by_template():
    assert chat_format(CHATML, SPECIAL) is chat_format(CHATML, dict(SPECIAL))
    assert chat_format(CHATML, SPECIAL) is not chat_format(CHATML, {})


def test_long_conversations():
    chat = ChatFormat(CHATML, {})
    roles = ("user", "assistant") * 300
    for size in range(len(roles)):
        chat.begin(roles[:size], roles[size])
    assert chat.begin(roles, "user") == "<|im_start|>user\n"
    assert ChatFormat(CHATML, {}).begin(roles, "user") == "<|im_start|>user\n"
