"""SGLang's import paths: which module offers which names, and where each is at home here.

Owns: the table, and modules that look a name up when it is first used.
"""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = __name__.rpartition(".")[0]

Names = Mapping[str, str]
"""Name -> "module:attribute", the module relative to this package."""

_VERBS: Final = {
    name: f"..:{name}"
    for name in (
        "assistant assistant_begin assistant_end flush_cache function gen gen_int gen_string "
        "get_server_info greedy_token_selection image select separate_reasoning "
        "set_default_backend system system_begin system_end token_length_normalized "
        "unconditional_likelihood_normalized user user_begin user_end video"
    ).split()
}
_API: Final = {
    **_VERBS,
    "Engine": "...runtime.engine:Engine",
    "Runtime": "..backends:Runtime",
}
_TEMPLATES: Final = {
    name: f"...runtime.templates:{name}"
    for name in (
        "ChatTemplate ChatTemplateStyle get_chat_template get_chat_template_by_model_path "
        "register_chat_template"
    ).split()
}
_CHOICES: Final = {
    "ChoicesDecision": "..choices:Decision",
    "ChoicesSamplingMethod": "..choices:ChoicesMethod",
    "greedy_token_selection": "..choices:greedy_token_selection",
    "token_length_normalized": "..choices:token_length_normalized",
    "unconditional_likelihood_normalized": "..choices:unconditional_likelihood_normalized",
}
_IR: Final = {
    **{
        name: f".regexes:{name}" for name in ("REGEX_BOOL", "REGEX_FLOAT", "REGEX_INT", "REGEX_STR")
    },
    "SglExpr": "..nodes:Node",
    "SglExprList": "..nodes:Sequence",
    "SglConstantText": "..nodes:Literal",
    "SglFunction": "..program:Program",
    "SglGen": "..nodes:Gen",
    "SglSelect": "..nodes:Select",
    "SglRoleBegin": "..nodes:RoleBegin",
    "SglRoleEnd": "..nodes:RoleEnd",
}
_INTERPRETER: Final = {
    "ProgramState": "..state:ProgramState",
    "ProgramStateGroup": "..forks:ForkGroup",
}
_UTILS: Final = {
    name: f".utils:{name}"
    for name in (
        "download_and_cache_file dump_state_text encode_image_base64 http_request "
        "launch_server_cmd print_highlight read_jsonl terminate_process wait_for_server"
    ).split()
}

_PATHS: Final[dict[str, Names]] = {
    "api": _API,
    "global_config": {"global_config": "..:global_config"},
    "lang": {},
    "lang.api": _API,
    "lang.chat_template": _TEMPLATES,
    "lang.choices": _CHOICES,
    "lang.interpreter": _INTERPRETER,
    "lang.ir": _IR,
    "lang.backend": {},
    "lang.backend.anthropic": {"Anthropic": "..backends:Anthropic"},
    "lang.backend.base_backend": {"BaseBackend": ".base_backend:BaseBackend"},
    "lang.backend.crusoe": {"Crusoe": "..backends:Crusoe"},
    "lang.backend.litellm": {"LiteLLM": "..backends:LiteLLM"},
    "lang.backend.openai": {"OpenAI": "..backends:OpenAI"},
    "lang.backend.runtime_endpoint": {
        "Runtime": "..backends:Runtime",
        "RuntimeEndpoint": "..backends:RuntimeEndpoint",
    },
    "lang.backend.vertexai": {"VertexAI": "..backends:VertexAI"},
    "srt": {},
    "srt.constrained": {},
    "srt.constrained.outlines_backend": {
        "build_regex_from_object": ".schema_regex:build_regex_from_object"
    },
    "srt.server_args": {"ServerArgs": "..backends:ServerArgs"},
    "srt.utils": {"load_image": ".utils:load_image"},
    "test": {},
    "test.test_utils": {
        "add_common_sglang_args_and_parse": ".test_utils:add_common_sglang_args_and_parse",
        "select_sglang_backend": ".test_utils:select_sglang_backend",
    },
    "utils": _UTILS,
}


def paths() -> Mapping[str, Names]:
    """Every path below `sglang`, parents first."""
    return _PATHS


def lazy(path: str, names: Names) -> ModuleType:
    """A module of these names. Another name of SGLang's is refused by that name."""
    module = ModuleType(path, f"`{path}`, as far as it has a meaning here.")

    def look_up(name: str) -> Any:
        if name == "__path__" or name not in names:
            known = ", ".join(names) or "none"
            raise AttributeError(f"module {path!r} has no {name!r} here; its names are: {known}")
        home, _, attribute = names[name].partition(":")
        value = getattr(import_module(home, _PACKAGE), attribute)
        setattr(module, name, value)
        return value

    vars(module)["__getattr__"] = look_up
    vars(module)["__dir__"] = lambda: sorted(names)
    vars(module)["__all__"] = list(names)
    if not names or any(other.startswith(path.partition(".")[2] + ".") for other in _PATHS):
        vars(module)["__path__"] = []
    return module
