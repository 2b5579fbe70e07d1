"""The named chat templates: what they write, by hand and through the language."""

from dataclasses import replace

import pytest

import sapwood as sw
from sapwood.runtime.chat import ChatFormat
from sapwood.runtime.templated import TemplatedClient
from sapwood.runtime.templates import (
    TEMPLATES,
    ChatTemplate,
    ChatTemplates,
    ChatTemplateStyle,
    get_chat_template,
    get_chat_template_by_model_path,
)
from sapwood.runtime.toy_tokens import TOY_INFO

pytestmark = pytest.mark.timeout(30)

NAMES = """
default claude chatml chatml-llava qwen qwen2-vl vicuna_v1.1 llama-2-chat mistral llama-3-instruct
minicpmv janus-pro minicpmo janus llama-3-instruct-llava llama-4 yi-1.5 yi-vl gemma-it gemma-4-it
dbrx-instruct c4ai-command-r internvl-2-5 interns1 granite-3-instruct deepseek-v3 glm-4v
""".split()

TALK = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "V"},
    {"role": "assistant", "content": "B"},
]


def test_the_names_are_these():
    assert list(TEMPLATES.names) == NAMES
    assert len(NAMES) == 27
    with pytest.raises(sw.InvalidRequest, match="chat_template_name: 'nope' is none of default"):
        get_chat_template("nope")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", [0, 1])
def test_jinja_says_the_same_as_the_markup(name, first):
    template = get_chat_template(name)
    talk = TALK[first:]
    whole = ChatFormat(template.jinja(), {}).render(talk)
    default = template.default_system_prompt
    given = talk
    if first and default is not None:
        given = [{"role": "system", "content": default}, *talk]
    assert whole == template.get_prompt(given)


@pytest.mark.parametrize("name", NAMES)
def test_a_growing_conversation_is_the_whole_one(name, scripted):
    template = get_chat_template(name)

    @sw.function
    def program(s):
        s += sw.system("S") + sw.user("U") + sw.assistant(sw.gen("a"))
        s += sw.user("V") + sw.assistant(sw.gen("b"))

    info = replace(TOY_INFO, chat_template=template.jinja(), template_stop=template.stop_str)
    client = scripted(["A", "B"], info=info)
    state = program.run(backend=client)
    assert state.text() == template.get_prompt(TALK)
    assert client.requests[0].sampling.stop == template.stop_str


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("default", "SYSTEM:S\nUSER:U\nASSISTANT:A\nUSER:V\nASSISTANT:B\n"),
        (
            "llama-2-chat",
            "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]A </s><s>[INST] V [/INST]B </s><s>",
        ),
        ("vicuna_v1.1", "S USER:U ASSISTANT:A</s>USER:V ASSISTANT:B</s>"),
        (
            "gemma-it",
            "S<start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
            "<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\nB<end_of_turn>\n",
        ),
        (
            "yi-1.5",
            "S<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
            "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n",
        ),
    ],
)
def test_what_some_of_them_write(name, text):
    assert get_chat_template(name).get_prompt(TALK) == text


def test_default_system_texts_stand_before_a_conversation_without_one(scripted):
    @sw.function
    def program(s):
        s += sw.user("U") + sw.assistant(sw.gen("a"))

    template = get_chat_template("qwen")
    client = scripted(["A"], info=replace(TOY_INFO, chat_template=template.jinja()))
    state = program.run(backend=client)
    assert state.messages()[0] == {"role": "system", "content": "You are a helpful assistant."}
    assert state.text().startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-V3-Base", "default"),
        ("lmsys/vicuna-7b-v1.5", "vicuna_v1.1"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-chat"),
        ("codellama/CodeLlama-7b-Instruct-hf", "llama-2-chat"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mistral"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-instruct"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3-instruct"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "chatml"),
        ("Qwen/Qwen2-VL-7B-Instruct", "qwen2-vl"),
        ("Qwen/Qwen1.5-7B-Chat", "qwen"),
        ("Qwen/Qwen3-0.6B", "default"),
        ("google/gemma-2-9b-it", "gemma-it"),
        ("databricks/dbrx-instruct", "dbrx-instruct"),
        ("CohereForAI/c4ai-command-r-v01", "c4ai-command-r"),
        ("ibm-granite/granite-3.0-8b-instruct", "granite-3-instruct"),
        ("THUDM/glm-4v-9b", "glm-4v"),
        ("gpt2", "default"),
    ],
)
def test_a_models_path_suggests_a_template(path, name):
    assert get_chat_template_by_model_path(path).name == name


def test_one_may_be_registered():
    table = ChatTemplates()
    mine = ChatTemplate("mine", "Hi.", {"user": ("U:", "\n"), "system": ("", "\n")})
    table.register(mine)
    assert table.get("mine") is mine
    assert mine.get_prompt([{"role": "system", "content": None}]) == "Hi.\n"
    assert mine.style is ChatTemplateStyle.PLAIN
    with pytest.raises(TypeError):
        table.register("mine")


def test_a_client_may_be_given_a_template(scripted):
    @sw.function
    def program(s):
        s += sw.user("U") + sw.assistant(sw.gen("a"))

    client = scripted(["A"])
    templated = TemplatedClient(client, get_chat_template("llama-3-instruct"))
    assert program.run(backend=templated).text().startswith("<|start_header_id|>user")
    assert client.requests[0].sampling.stop == ("<|eot_id|>",)
    assert templated.control("stats")["num_requests"] == 1
    with pytest.raises(sw.InvalidRequest, match="chat_template_name: 'nope'"):
        sw.Engine(chat_template_name="nope")


def test_a_role_without_markup_is_refused():
    template = ChatTemplate("mine", None, {"user": ("U:", "\n")})
    with pytest.raises(sw.InvalidRequest, match="role assistant"):
        ChatFormat(template.jinja(), {}).render(TALK[2:3])
